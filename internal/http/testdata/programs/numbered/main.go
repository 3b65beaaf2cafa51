// Command numbered is a chain of servers that ask each other, each for the sake of what it was asked, with a number that goes
// along in x-request-id.
//
//	numbered serve                         a server of gRPC
//	numbered relay SERVES ASKS PORT        a server that asks the one on the port
//	numbered call PORT FIRST COUNT AT_ONCE unary calls of gRPC
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

func main() {
	var err error
	switch arguments := os.Args[2:]; os.Args[1] {
	case "serve":
		err = serve("gRPC", func(string) error { return nil })
	case "relay":
		err = relay(arguments[0], arguments[1], arguments[2])
	case "call":
		err = call(arguments[0], arguments[1], arguments[2], arguments[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// requestIDHeader tells requests apart, all along a chain.
const requestIDHeader = "x-request-id"

// call makes unary calls of gRPC, so many at once, each with its number.
func call(port, first, count, atOnce string) error {
	connection, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := testgrpc.NewTestServiceClient(connection)
	from, _ := strconv.Atoi(first)
	calls, _ := strconv.Atoi(count)
	workers, _ := strconv.Atoi(atOnce)
	var (
		group sync.WaitGroup
		mutex sync.Mutex
		wrong error
	)
	queue := make(chan int)
	for range workers {
		group.Go(func() {
			for number := range queue {
				ctx := metadata.AppendToOutgoingContext(context.Background(), requestIDHeader, strconv.Itoa(number))
				if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 10}); err != nil {
					mutex.Lock()
					wrong = errors.Join(wrong, err)
					mutex.Unlock()
				}
			}
		})
	}
	for number := from; number < from+calls; number++ {
		queue <- number
	}
	close(queue)
	group.Wait()
	return wrong
}

// relayService is a service that asks another server before it answers.
type relayService struct {
	testgrpc.UnimplementedTestServiceServer
	ask func(number string) error
}

func (s relayService) UnaryCall(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	received, _ := metadata.FromIncomingContext(ctx)
	return &testgrpc.SimpleResponse{}, s.ask(strings.Join(received.Get(requestIDHeader), ","))
}

// relay is a server that asks another one, on a port, with the number that it was asked with. serves is "gRPC" or
// "HTTP"; asks is "gRPC", "HTTP/1" or "HTTP/2", and "child" of them: on a goroutine of the request's own.
func relay(serves, asks, port string) error {
	asks, child := strings.CutSuffix(asks, " child")
	ask, err := askOf(asks, port)
	if err != nil {
		return err
	}
	if child {
		inner := ask
		ask = func(number string) error {
			done := make(chan error)
			go func() { done <- inner(number) }()
			return <-done
		}
	}
	return serve(serves, ask)
}

// serve asks before it answers.
func serve(serves string, ask func(number string) error) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("{\"port\":%d}\n", listener.Addr().(*net.TCPAddr).Port)
	if serves == "gRPC" {
		server := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(server, relayService{ask: ask})
		return server.Serve(listener)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := ask(r.Header.Get(requestIDHeader)); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})}
	return server.Serve(listener)
}

// askOf gives what asks the server on a port.
func askOf(asks, port string) (func(number string) error, error) {
	if asks == "gRPC" {
		connection, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		client := testgrpc.NewTestServiceClient(connection)
		return func(number string) error {
			ctx := metadata.AppendToOutgoingContext(context.Background(), requestIDHeader, number)
			_, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 10})
			return err
		}, nil
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(asks == "HTTP/1")
	protocols.SetUnencryptedHTTP2(asks == "HTTP/2")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100, Protocols: protocols}}
	return func(number string) error {
		request, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+port+"/next", nil)
		if err != nil {
			return err
		}
		request.Header.Set(requestIDHeader, number)
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err = io.Copy(io.Discard, response.Body); err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		return err
	}, nil
}
