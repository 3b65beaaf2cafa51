//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

const (
	grpcPort        = 8081
	grpcAddress     = "127.0.0.1:8081"
	grpcConnections = 8
	grpcStreams     = 16 // calls at a time on each connection
	grpcPayload     = 100
)

// grpcService answers with what is asked for.
type grpcService struct {
	testgrpc.UnimplementedTestServiceServer
}

func (grpcService) EmptyCall(context.Context, *testgrpc.Empty) (*testgrpc.Empty, error) {
	return &testgrpc.Empty{}, nil
}

func (grpcService) UnaryCall(_ context.Context, request *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	if asked := request.GetResponseStatus(); asked.GetCode() != 0 {
		return nil, status.Error(codes.Code(asked.GetCode()), asked.GetMessage())
	}
	return &testgrpc.SimpleResponse{Payload: request.GetPayload()}, nil
}

func grpcServerRole() operations {
	return operations{"finish": finish(), "listen": operation(func(none) (none, error) {
		listener, err := net.Listen("tcp4", grpcAddress)
		if err != nil {
			return none{}, err
		}
		server := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(server, grpcService{})
		go func() { _ = server.Serve(listener) }() // until the process ends
		return none{}, nil
	})}
}

// grpcOrder is how long a client is to call.
type grpcOrder struct {
	WarmUp, Window time.Duration
}

// grpcResult is what a client has done: throughput and latencies of the window, the counts of everything.
type grpcResult struct {
	Calls       int
	PerSecond   float64
	Median, P99 time.Duration
	Outcomes    map[string]int // calls by method and status, as exchangeCounts spells them
}

func grpcClientRole() operations {
	return operations{"run": operation(callGRPC)}
}

// grpcCaller is one call after the other.
type grpcCaller struct {
	client    testgrpc.TestServiceClient
	outcomes  map[string]int
	latencies []int64 // nanoseconds, of calls that ended in the window
	err       error
}

// callGRPC keeps so many calls under way.
func callGRPC(order grpcOrder) (grpcResult, error) {
	var (
		group       sync.WaitGroup
		connections []*grpc.ClientConn
		callers     []*grpcCaller
	)
	from := time.Now().Add(order.WarmUp)
	to := from.Add(order.Window)
	for range grpcConnections {
		connection, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return grpcResult{}, fmt.Errorf("make a client: %w", err)
		}
		connections = append(connections, connection)
		for range grpcStreams {
			caller := &grpcCaller{client: testgrpc.NewTestServiceClient(connection), outcomes: map[string]int{}}
			callers = append(callers, caller)
			group.Go(func() { caller.run(from, to) })
		}
	}
	group.Wait()
	result := grpcResult{Outcomes: map[string]int{}}
	var latencies []int64
	var errs []error
	for _, caller := range callers {
		errs = append(errs, caller.err)
		latencies = append(latencies, caller.latencies...)
		for what, count := range caller.outcomes {
			result.Outcomes[what] += count
			result.Calls += count
		}
	}
	for _, connection := range connections {
		errs = append(errs, connection.Close())
	}
	result.PerSecond = float64(len(latencies)) / order.Window.Seconds()
	slices.Sort(latencies)
	result.Median, result.P99 = time.Duration(quantile(latencies, 0.5)), time.Duration(quantile(latencies, 0.99))
	return result, errors.Join(errs...)
}

// run calls until a time. Most calls are alike; some fail, and some are of another method.
func (c *grpcCaller) run(from, to time.Time) {
	const service = "grpc.testing.TestService/"
	payload := &testgrpc.Payload{Body: make([]byte, grpcPayload)}
	refused := &testgrpc.EchoStatus{Code: int32(codes.NotFound), Message: "asked for"}
	for number := 0; c.err == nil; number++ {
		start := time.Now()
		if !start.Before(to) {
			return
		}
		outcome, want := service+"UnaryCall OK", codes.OK
		var err error
		switch number % 10 {
		case 8:
			outcome, want = service+"UnaryCall NOT_FOUND", codes.NotFound
			_, err = c.client.UnaryCall(context.Background(), &testgrpc.SimpleRequest{ResponseStatus: refused})
		case 9:
			outcome = service + "EmptyCall OK"
			_, err = c.client.EmptyCall(context.Background(), &testgrpc.Empty{})
		default:
			_, err = c.client.UnaryCall(context.Background(), &testgrpc.SimpleRequest{Payload: payload})
		}
		if status.Code(err) != want {
			c.err = fmt.Errorf("a call that should have been %s was %v", outcome, status.Convert(err))
			return
		}
		c.outcomes[outcome]++
		if end := time.Now(); !end.Before(from) && end.Before(to) {
			c.latencies = append(c.latencies, int64(end.Sub(start)))
		}
	}
}
