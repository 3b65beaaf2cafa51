package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// testService is gRPC's own test service, as far as it is called here.
type testService struct {
	testgrpc.UnimplementedTestServiceServer
}

func (testService) UnaryCall(_ context.Context, request *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	if asked := request.GetResponseStatus(); asked.GetCode() != 0 {
		return nil, status.Error(codes.Code(asked.GetCode()), asked.GetMessage())
	}
	return &testgrpc.SimpleResponse{Payload: &testgrpc.Payload{Body: make([]byte, request.GetResponseSize())}}, nil
}

// serveCalls serves the test service, in TLS if there is a file with a certificate and its key.
func serveCalls(address string, certificates ...string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	transport := insecure.NewCredentials()
	if len(certificates) > 0 {
		if transport, err = credentials.NewServerTLSFromFile(certificates[0], certificates[0]); err != nil {
			return err
		}
	}
	report{Event: "listening", LocalPort: listener.Addr().(*net.TCPAddr).Port}.print()
	server := grpc.NewServer(grpc.Creds(transport))
	testgrpc.RegisterTestServiceServer(server, testService{})
	return server.Serve(listener)
}

// call makes unary calls one after the other. Each third one fails, with NOT_FOUND.
func call(address string, secure bool) error {
	transport := insecure.NewCredentials()
	if secure {
		transport = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(transport))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	client := testgrpc.NewTestServiceClient(connection)
	return eachLine(func(count int) error {
		for number := range count {
			request := &testgrpc.SimpleRequest{ResponseSize: int32(number), Payload: &testgrpc.Payload{Body: make([]byte, 100)}}
			want := codes.OK
			if number%3 == 2 {
				want = codes.NotFound
				request.ResponseStatus = &testgrpc.EchoStatus{Code: int32(want), Message: "asked for"}
			}
			if _, err := client.UnaryCall(context.Background(), request); status.Code(err) != want {
				return fmt.Errorf("call %d: %w", number, err)
			}
		}
		report{Event: "called", Sent: count}.print()
		return nil
	})
}
