//go:build linux

package http

import (
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

const (
	// goRoundTrip is where net/http hands a request of HTTP/1 to its connection, whose own goroutine writes it. See
	// bpf/include/http/go_client.h.
	goRoundTrip = "net/http.(*persistConn).roundTrip"

	goStreamsProgram = "http_go_streams"
	grpcModule       = "google.golang.org/grpc"
	// oldestGRPC and newestGRPC are the versions v1.N of grpc-go in whose sources the places of structures were looked up.
	oldestGRPC, newestGRPC = 40, 83
)

// goStreamFunctions are where it shows which goroutine serves a stream of HTTP/2, or asks with one, with the cookies of
// bpf/include/http/go_streams.h. grpc is N of the program's version v1.N of grpc-go; 0: it has none that is known.
func goStreamFunctions(grpc int) map[string]bpfGoStreamCookie {
	const grpcTransport = grpcModule + "/internal/transport."
	cookie := func(event bpfGoStreamEvent, pointers, offset bpfGoStreamCookie) bpfGoStreamCookie {
		return bpfGoStreamCookie(event) | pointers*bpfGoStreamCookieGO_STREAM_POINTERS | offset*bpfGoStreamCookieGO_STREAM_OFFSET
	}
	// responseWriter.rws.stream.id, since 2015.
	handled := cookie(bpfGoStreamEventGO_STREAM_HANDLED, 2, 8)
	functions := map[string]bpfGoStreamCookie{
		"net/http.(*http2serverConn).runHandler":          handled,
		"golang.org/x/net/http2.(*serverConn).runHandler": handled,
	}
	if grpc < oldestGRPC || grpc > newestGRPC {
		return functions
	}
	served := cookie(bpfGoStreamEventGO_STREAM_SERVED, 0, 0) // Stream.id
	switch {
	case grpc >= 77:
		served = cookie(bpfGoStreamEventGO_STREAM_SERVED, 0, 108) // ServerStream.Stream.id, behind others
	case grpc >= 69:
		served = cookie(bpfGoStreamEventGO_STREAM_SERVED, 1, 0) // ServerStream.Stream, a pointer
	}
	written := "(*loopyWriter).headerHandler"
	if grpc >= 83 {
		written = "(*loopyWriter).clientHeaderHandler"
	}
	maps.Copy(functions, map[string]bpfGoStreamCookie{
		grpcTransport + "(*http2Server).HandleStreams":   cookie(bpfGoStreamEventGO_STREAM_READ, 0, 0),
		grpcModule + ".(*Server).handleStream":           served,
		grpcTransport + "(*http2Client).NewStream":       cookie(bpfGoStreamEventGO_STREAM_ASKED, 0, 0),
		grpcTransport + "(*controlBuffer).executeAndPut": cookie(bpfGoStreamEventGO_STREAM_QUEUED, 0, 0),
		grpcTransport + written:                          cookie(bpfGoStreamEventGO_STREAM_WRITTEN, 0, 0), // headerFrame.streamID
	})
	return functions
}

// goClientFunctions are all that goClients may attach to.
func goClientFunctions() []string {
	names := []string{goRoundTrip}
	for _, grpc := range []int{oldestGRPC, newestGRPC} {
		names = slices.AppendSeq(names, maps.Keys(goStreamFunctions(grpc)))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// goClients attaches the kernel side to programs of Go that serve requests and make some as well, so that it learns which
// goroutine serves which request, and which one waits for the response to one. A program that does only one of them costs
// nothing.
type goClients struct {
	client, streams *ebpf.Program
	logger          *zap.Logger
	// handledElsewhere says that goMux attaches to where net/http serves streams, in programs that have a mux.
	handledElsewhere bool
}

var _ tls.Attacher = (*goClients)(nil)

// Attach implements tls.Attacher.
func (g *goClients) Attach(target tls.Target) (io.Closer, error) {
	_, known := goLayoutOf(target.GoVersion)
	functions := goStreamFunctions(g.grpc(&target))
	if g.handledElsewhere && hasGoMux(&target) {
		for _, name := range goRunHandlers() {
			delete(functions, name)
		}
	}
	uprobes := tls.Uprobes{
		Program: func(_ tls.Target, at site.Site) *ebpf.Program {
			_, ofStreams := functions[at.Function]
			switch {
			case !known || at.Event != site.Entry || at.Cost != site.Emulated:
			case at.Function == goRoundTrip:
				return g.client
			case ofStreams:
				return g.streams
			}
			return nil
		},
		Cookie: func(_ tls.Target, at site.Site) uint64 { return uint64(functions[at.Function]) },
	}
	return uprobes.Attach(target)
}

// grpc gives N of the version v1.N of grpc-go that a program has; 0: none, or none that is known.
func (g *goClients) grpc(target *tls.Target) int {
	has := slices.ContainsFunc(target.Sites, func(at site.Site) bool { return strings.HasPrefix(at.Function, grpcModule) })
	if !has {
		return 0
	}
	version, err := grpcVersion(target.GoModules)
	if err == nil {
		var minor int
		if minor, err = grpcMinor(version); err == nil {
			return minor
		}
	}
	g.logger.Info("What a program of Go asks for while it serves a call of gRPC has no parent: its grpc-go is not known",
		zap.String("file", target.Name), zap.Error(err))
	return 0
}

// grpcVersion reads which version of grpc-go a program was built with.
func grpcVersion(modules []*debug.Module) (string, error) {
	for _, module := range modules {
		switch {
		case module.Path != grpcModule:
		case module.Replace == nil:
			return module.Version, nil
		case module.Replace.Path == grpcModule:
			return module.Replace.Version, nil
		default:
			return "", fmt.Errorf("find the version of grpc-go: it is replaced by %s: %w", module.Replace.Path, site.ErrUnsupported)
		}
	}
	return "", fmt.Errorf("find the version of grpc-go among the program's modules: %w", site.ErrUnsupported)
}

// grpcMinor gives N of a released version v1.N.M that is known.
func grpcMinor(version string) (int, error) {
	rest, first := strings.CutPrefix(version, "v1.")
	text, patch, _ := strings.Cut(rest, ".")
	minor, err := strconv.Atoi(text)
	if _, patchErr := strconv.ParseUint(patch, 10, 32); !first || err != nil || patchErr != nil ||
		minor < oldestGRPC || minor > newestGRPC {
		return 0, fmt.Errorf("look up where grpc-go %s has its streams (known are v1.%d to v1.%d): %w",
			version, oldestGRPC, newestGRPC, site.ErrUnsupported)
	}
	return minor, nil
}
