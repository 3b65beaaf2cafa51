//go:build linux

package http

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	grpcstatus "google.golang.org/grpc/status"
)

// testService is gRPC's own test service, as far as it is called here.
type testService struct {
	testgrpc.UnimplementedTestServiceServer
}

func (testService) UnaryCall(_ context.Context, request *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	if asked := request.GetResponseStatus(); asked.GetCode() != 0 {
		return nil, grpcstatus.Error(codes.Code(asked.GetCode()), asked.GetMessage())
	}
	return &testgrpc.SimpleResponse{Payload: &testgrpc.Payload{Body: make([]byte, request.GetResponseSize())}}, nil
}

func (testService) StreamingOutputCall(
	request *testgrpc.StreamingOutputCallRequest, stream testgrpc.TestService_StreamingOutputCallServer,
) error {
	for _, asked := range request.GetResponseParameters() {
		response := &testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: make([]byte, asked.GetSize())}}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	return nil
}

func (testService) StreamingInputCall(stream testgrpc.TestService_StreamingInputCallServer) error {
	size := 0
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)})
		}
		if err != nil {
			return err
		}
		size += len(request.GetPayload().GetBody())
	}
}

func (testService) FullDuplexCall(stream testgrpc.TestService_FullDuplexCallServer) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return notEOF(err)
		}
		for _, asked := range request.GetResponseParameters() {
			response := &testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: make([]byte, asked.GetSize())}}
			if err := stream.Send(response); err != nil {
				return err
			}
		}
	}
}

// serveGRPCMain serves the test service.
func serveGRPCMain() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var out records
	out.say(record{Port: listener.Addr().(*net.TCPAddr).Port})
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, testService{})
	return server.Serve(listener)
}

// The status that a unary call asks for: all there are, and each tenth one is of a method that is not there.
func askedStatus(call int) codes.Code {
	if call%10 == 9 {
		return codes.Unimplemented
	}
	return codes.Code(call % 17)
}

// callGRPCMain makes so many unary calls at once, and then one of each kind of stream.
func callGRPCMain(port, count, atOnce string) error {
	connection, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := testgrpc.NewTestServiceClient(connection)
	calls, _ := strconv.Atoi(count)
	workers, _ := strconv.Atoi(atOnce)
	queue := make(chan int)
	var (
		group sync.WaitGroup
		mutex sync.Mutex
		wrong error
	)
	for range workers {
		group.Go(func() {
			for call := range queue {
				if got := grpcstatus.Code(unary(client, call)); got != askedStatus(call) {
					mutex.Lock()
					wrong = errors.Join(wrong, errors.New(strconv.Itoa(call)+": "+got.String()))
					mutex.Unlock()
				}
			}
		})
	}
	for call := range calls {
		queue <- call
	}
	close(queue)
	group.Wait()
	if wrong != nil {
		return wrong
	}
	return errors.Join(serverStream(client), clientStream(client), bothStreams(client))
}

func unary(client testgrpc.TestServiceClient, call int) error {
	ctx := context.Background()
	if call%10 == 9 {
		_, err := client.UnimplementedCall(ctx, &testgrpc.Empty{})
		return err
	}
	request := &testgrpc.SimpleRequest{ResponseSize: 10, Payload: &testgrpc.Payload{Body: make([]byte, call%3000)}}
	if code := askedStatus(call); code != codes.OK {
		request.ResponseStatus = &testgrpc.EchoStatus{Code: int32(code), Message: "asked for"}
	}
	_, err := client.UnaryCall(ctx, request)
	return err
}

func serverStream(client testgrpc.TestServiceClient) error {
	stream, err := client.StreamingOutputCall(context.Background(), &testgrpc.StreamingOutputCallRequest{
		ResponseParameters: []*testgrpc.ResponseParameters{{Size: 100}, {Size: 100_000}, {Size: 1}},
	})
	if err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return notEOF(err)
		}
	}
}

func clientStream(client testgrpc.TestServiceClient) error {
	stream, err := client.StreamingInputCall(context.Background())
	if err != nil {
		return err
	}
	for range 5 {
		request := &testgrpc.StreamingInputCallRequest{Payload: &testgrpc.Payload{Body: make([]byte, 30_000)}}
		if err := stream.Send(request); err != nil {
			return err
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func bothStreams(client testgrpc.TestServiceClient) error {
	stream, err := client.FullDuplexCall(context.Background())
	if err != nil {
		return err
	}
	for range 5 {
		request := &testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 1000}}}
		if err := stream.Send(request); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	_, err = stream.Recv()
	return notEOF(err)
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
