//go:build linux

package http

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c" //nolint:staticcheck // what replaces it does not upgrade
)

// programVariable makes the test binary a program that the probe observes: it does not observe its own process.
const programVariable = "EBPFRECEIVER_TEST_PROGRAM"

// certificateVariable is a file with a certificate and its key: a server that has it serves HTTPS.
const certificateVariable = "EBPFRECEIVER_TEST_CERTIFICATE"

func TestMain(m *testing.M) {
	switch os.Getenv(programVariable) {
	case "":
		goleak.VerifyTestMain(m)
	case "serve":
		exit(serveMain(os.Args[1], os.Args[2], os.Getenv(certificateVariable)))
	case "serve upgraded":
		exit(serveUpgradedMain())
	case "relay":
		exit(relayMain(os.Args[1]))
	case "proxy":
		exit(proxyMain(os.Args[1], os.Getenv(certificateVariable)))
	case "fetch":
		exit(fetchMain())
	case "uring":
		exit(uringMain(os.Args[1:]))
	case "serve gRPC":
		exit(serveGRPCMain())
	case "call gRPC on request":
		exit(callGRPCOnRequestMain(os.Args[1]))
	case "call gRPC":
		exit(callGRPCMain(os.Args[1], os.Args[2], os.Args[3]))
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// record is what a program says of an exchange, or of itself where it has a Port.
type record struct {
	Port     int    `json:"port,omitempty"`
	Method   string `json:"method,omitempty"`
	Path     string `json:"path,omitempty"`
	Status   int    `json:"status,omitempty"`
	Received int64  `json:"received"` // of the body
	Sent     int64  `json:"sent"`
	Ns       int64  `json:"ns,omitempty"`
	Error    string `json:"error,omitempty"`
	// Says are the attributes that a model server expects of its answer.
	Says map[string]any `json:"says,omitempty"`
}

// records writes what a program has to say.
type records struct {
	mutex   sync.Mutex
	encoder *json.Encoder
}

func (r *records) say(what record) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.encoder == nil {
		r.encoder = json.NewEncoder(os.Stdout)
	}
	_ = r.encoder.Encode(what)
}

// serveMain is a server that answers as the query of a request says: status, size of the body, chunked or not, and how
// much of it, and which delay before. It speaks HTTP/1 and HTTP/2.
func serveMain(network, address, certificate string) error {
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	var out records
	out.say(record{Port: listener.Addr().(*net.TCPAddr).Port})
	piece := make([]byte, 64<<10)
	server := http.Server{Protocols: &http.Protocols{}}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		received, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		number := func(name string, otherwise int) int {
			if value, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil {
				return value
			}
			return otherwise
		}
		status, size := number("status", 200), number("size", 0)
		time.Sleep(time.Duration(number("ms", 0)) * time.Millisecond)
		bodiless := status == http.StatusNoContent || status == http.StatusNotModified
		if number("chunked", 0) == 0 && !bodiless {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		w.WriteHeader(status)
		sent := 0
		if r.Method != http.MethodHead && !bodiless {
			if number("chunked", 0) > 0 {
				w.(http.Flusher).Flush()
			}
			piece := piece
			if number("once", 0) > 0 {
				piece = make([]byte, size)
			}
			for sent < size && number("stop", size) > sent {
				n, err := w.Write(piece[:min(len(piece), size-sent)])
				sent += n
				if err != nil {
					break
				}
			}
			if sent < size {
				w.(http.Flusher).Flush()
				out.say(record{Path: r.URL.Path, Sent: int64(sent)})
				select {} // until the process is killed
			}
		}
		out.say(record{
			Method: r.Method, Path: r.URL.Path, Status: status, Received: received, Sent: int64(sent),
			Ns: int64(time.Since(start)),
		})
	})
	if certificate != "" {
		return server.ServeTLS(listener, certificate, certificate)
	}
	return server.Serve(listener)
}

// serveUpgradedMain is a server that goes on in HTTP/2 where a request in HTTP/1 asks for it.
func serveUpgradedMain() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var out records
	out.say(record{Port: listener.Addr().(*net.TCPAddr).Port})
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "20000")
		_, _ = w.Write(make([]byte, 20_000))
	})
	//nolint:staticcheck // what replaces it does not upgrade
	return http.Serve(listener, h2c.NewHandler(answer, &http2.Server{}))
}

// plan is what a client is to do.
type plan struct {
	AtOnce    int
	KeepAlive bool
	HTTP2     bool
	Insecure  bool // certificates are not verified
	Requests  []planned
}

type planned struct {
	Method, URL string
	Size        int
	Chunked     bool
	Headers     map[string]string
}

// fetchMain is a client that follows the plan on its input, and tells of each request in any order.
func fetchMain() error {
	var p plan
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		return err
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!p.HTTP2)
	protocols.SetHTTP2(p.HTTP2)
	protocols.SetUnencryptedHTTP2(p.HTTP2)
	client := &http.Client{
		Transport: &http.Transport{
			DisableCompression: true, DisableKeepAlives: !p.KeepAlive,
			MaxIdleConnsPerHost: p.AtOnce, Protocols: protocols,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: p.Insecure},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var (
		out   records
		group sync.WaitGroup
	)
	requests := make(chan planned)
	for range p.AtOnce {
		group.Go(func() {
			for r := range requests {
				out.say(r.fetch(client))
			}
		})
	}
	for _, r := range p.Requests {
		requests <- r
	}
	close(requests)
	group.Wait()
	return nil
}

func (p planned) fetch(client *http.Client) record {
	var body io.Reader
	if p.Size > 0 || p.Chunked {
		body = io.LimitReader(letters{}, int64(p.Size))
	}
	request, err := http.NewRequest(p.Method, p.URL, body)
	if err != nil {
		return record{Error: err.Error()}
	}
	request.ContentLength = int64(p.Size)
	if p.Chunked {
		request.ContentLength = -1
	}
	for name, value := range p.Headers {
		request.Header.Set(name, value)
	}
	told := record{Method: p.Method, Path: request.URL.Path, Sent: int64(p.Size)}
	start := time.Now()
	response, err := client.Do(request)
	if err != nil {
		told.Error = err.Error()
		return told
	}
	defer response.Body.Close()
	told.Status = response.StatusCode
	if told.Received, err = io.Copy(io.Discard, response.Body); err != nil {
		told.Error = err.Error()
	}
	told.Ns = int64(time.Since(start))
	return told
}

// letters is a text without end.
type letters struct{}

func (letters) Read(b []byte) (int, error) {
	copy(b, strings.Repeat("x", len(b)))
	return len(b), nil
}
