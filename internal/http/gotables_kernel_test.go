//go:build linux

package http

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// callGRPCOnRequestMain makes unary calls on one connection, as many as each line of its input says, and says when they are
// answered. Each has a header of its own, so that its table of header fields changes.
func callGRPCOnRequestMain(port string) error {
	connection, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := testgrpc.NewTestServiceClient(connection)
	var out records
	number := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		count, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		queue := make(chan int)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for call := range queue {
					ctx := metadata.AppendToOutgoingContext(context.Background(), "x-number", strconv.Itoa(call))
					var got codes.Code
					if call%2 == 0 {
						_, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 10})
						got = grpcstatus.Code(err)
					} else {
						_, err := client.EmptyCall(ctx, &testgrpc.Empty{})
						got = grpcstatus.Code(err)
					}
					if got != codes.OK && got != codes.Unimplemented {
						out.say(record{Error: got.String()})
					}
				}
			})
		}
		for range count {
			queue <- number
			number++
		}
		close(queue)
		group.Wait()
		out.say(record{Status: count})
	}
	return nil
}

// stripped is a copy of the test's program without symbols and DWARF.
func stripped(t *testing.T) string {
	t.Helper()
	strip, err := exec.LookPath("strip")
	require.NoError(t, err, "apt install binutils")
	path := filepath.Join(t.TempDir(), "stripped")
	output, err := exec.Command(strip, "-s", "-o", path, executable(t)).CombinedOutput()
	require.NoError(t, err, string(output))
	return path
}

// selecting lets the probe observe a program alone.
func selecting(t *testing.T, path string) func(*Probe) {
	return func(p *Probe) {
		resolved, err := filepath.EvalSymlinks(path)
		require.NoError(t, err)
		selection := workload.Selection{Include: []workload.Rule{{Executable: resolved}}}
		p.selector, err = selection.Compile()
		require.NoError(t, err)
	}
}

func (o *observation) clear() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.spans = nil
}

// spansOf gives all spans of a port, by their kind.
func (o *observation) spansOf(port int) (clients, servers []ptrace.Span) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for _, span := range o.spans {
		switch {
		case span.Kind() == ptrace.SpanKindClient && number(span, attrPeerPort) == int64(port):
			clients = append(clients, span)
		case span.Kind() == ptrace.SpanKindServer && number(span, attrLocalPort) == int64(port):
			servers = append(servers, span)
		}
	}
	return clients, servers
}

// make has a client make calls, and gives the spans of both ends.
func (o *observation) make(client *program, port, count int) (clients, servers []ptrace.Span) {
	o.t.Helper()
	o.clear()
	begin := time.Now()
	client.tell(o.t, fmt.Sprint(count))
	client.record(o.t)
	o.took = time.Since(begin)
	require.Eventually(o.t, func() bool {
		clients, servers = o.spansOf(port)
		return len(clients) >= count && len(servers) >= count
	}, patience, time.Millisecond, "lost %v", o.losses())
	require.Len(o.t, clients, count)
	require.Len(o.t, servers, count)
	return clients, servers
}

// methods counts spans by what is known of their calls.
func methods(spans []ptrace.Span) map[string]int {
	got := map[string]int{}
	for _, span := range spans {
		method := text(span, attrRPCMethod)
		if method == methodOther {
			method = text(span, attrRPCMethodOther)
		}
		got[method+" "+text(span, attrRPCStatus)]++
	}
	return got
}

// TestGRPCJoinedMidway observes a connection of gRPC that has named its methods before: what their indexes mean is learned
// from the programs, and they are let alone then.
func TestGRPCJoinedMidway(t *testing.T) {
	for _, how := range []string{"with symbols", "stripped"} {
		t.Run(how, func(t *testing.T) {
			path := executable(t)
			if how == "stripped" {
				path = stripped(t)
			}
			server := start(t, []string{programVariable + "=serve gRPC"}, path)
			port := server.record(t).Port
			client := start(t, []string{programVariable + "=call gRPC on request"}, path, strconv.Itoa(port))
			client.tell(t, "100")
			client.record(t)

			o := observe(t, selecting(t, path))
			batches := 0
			require.Eventually(t, func() bool {
				batches++
				clients, servers := o.make(client, port, 10)
				want := map[string]int{
					"grpc.testing.TestService/UnaryCall OK": 5, "grpc.testing.TestService/EmptyCall UNIMPLEMENTED": 5,
				}
				return assert.ObjectsAreEqual(want, methods(clients)) && assert.ObjectsAreEqual(want, methods(servers))
			}, patience, 20*time.Millisecond)
			t.Logf("all is known after %d batches of 10 calls", batches)

			clients, servers := o.make(client, port, 1000)
			want := map[string]int{
				"grpc.testing.TestService/UnaryCall OK": 500, "grpc.testing.TestService/EmptyCall UNIMPLEMENTED": 500,
			}
			assert.Equal(t, want, methods(clients))
			assert.Equal(t, want, methods(servers))
			assert.Empty(t, o.losses())
			attached := o.took
			require.Eventually(t, func() bool {
				for _, usage := range o.Stats().Maps {
					if usage.Map == "go_table_processes" {
						return usage.Entries == 0
					}
				}
				return false
			}, patience, 10*time.Millisecond, "the programs are let alone")
			clients, servers = o.make(client, port, 1000)
			assert.Equal(t, want, methods(clients))
			assert.Equal(t, want, methods(servers))
			t.Logf("1000 calls take %v while the programs are attached to, and %v later", attached, o.took)
		})
	}
}

// buildJoined makes a program of net/http alone, without symbols. toolchain is a version of Go to fetch; empty: this one.
func buildJoined(t *testing.T, toolchain string) string {
	t.Helper()
	source, err := os.ReadFile("testdata/programs/joined/main.go")
	require.NoError(t, err)
	directory := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(directory, "main.go"), source, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(directory, "go.mod"), []byte("module joined\n\ngo 1.20\n"), 0o600))
	command := exec.Command("go", "build", "-ldflags=-s -w", "-o", "joined", ".")
	command.Dir = directory
	command.Env = append(os.Environ(), "GOFLAGS=")
	if toolchain != "" {
		// go test has set GOROOT, and put its own tools first.
		command.Env = slices.DeleteFunc(append(command.Env, "GOTOOLCHAIN="+toolchain), func(variable string) bool {
			return strings.HasPrefix(variable, "GOROOT=") || strings.HasPrefix(variable, "GOTOOLCHAIN_INTERNAL")
		})
	}
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return filepath.Join(directory, "joined")
}

// paths counts spans by the path that they know.
func paths(spans []ptrace.Span) map[string]int {
	got := map[string]int{}
	for _, span := range spans {
		got[spanPath(span)]++
	}
	return got
}

// TestHTTP2JoinedMidway does the same with net/http, in TLS. EBPFRECEIVER_TEST_GO names versions of Go to build it with.
func TestHTTP2JoinedMidway(t *testing.T) {
	for _, toolchain := range append([]string{""}, strings.Fields(os.Getenv("EBPFRECEIVER_TEST_GO"))...) {
		t.Run("Go "+toolchain, func(t *testing.T) {
			path := buildJoined(t, toolchain)
			server := start(t, nil, path)
			port := server.record(t).Port
			client := start(t, nil, path, strconv.Itoa(port))
			client.tell(t, "100")
			client.record(t)

			o := observe(t, selecting(t, path))
			o.attached(server, client)
			client.tell(t, "10") // with these, the connection is joined: an exchange under way then is not told of
			client.record(t)
			time.Sleep(200 * time.Millisecond)
			joined := o.losses()
			batches := 0
			require.Eventually(t, func() bool {
				batches++
				clients, servers := o.make(client, port, 10)
				want := map[string]int{"/service/0": 5, "/service/1": 5}
				return assert.ObjectsAreEqual(want, paths(clients)) && assert.ObjectsAreEqual(want, paths(servers))
			}, patience, 20*time.Millisecond)
			t.Logf("all is known after %d batches of 10 requests", batches)

			clients, servers := o.make(client, port, 200)
			want := map[string]int{"/service/0": 100, "/service/1": 100}
			assert.Equal(t, want, paths(clients))
			assert.Equal(t, want, paths(servers))
			assert.Equal(t, joined, o.losses())
		})
	}
}
