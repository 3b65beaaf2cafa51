//go:build linux

package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	nethttp "net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

const (
	httpPort        = 8080
	httpAddress     = "127.0.0.1:8080"
	httpConnections = 32
	httpBody        = "Hello, this is a response of some 100 bytes, which is what a small answer of an interface often has.\n"
)

// httpListen is how a server is to listen.
type httpListen struct {
	Certificate []byte // with its key, in PEM; empty: without TLS
}

func (l httpListen) scheme() string {
	if len(l.Certificate) > 0 {
		return "https"
	}
	return "http"
}

// finish is of servers that count nothing themselves.
func finish() func(json.RawMessage) (any, error) {
	return operation(func(none) (none, error) { return none{}, nil })
}

// httpServerRole is a Go server.
func httpServerRole() operations {
	return operations{"finish": finish(), "listen": operation(func(order httpListen) (none, error) {
		listener, err := net.Listen("tcp4", httpAddress)
		if err != nil {
			return none{}, err
		}
		server := &nethttp.Server{
			ReadHeaderTimeout: time.Minute,
			Handler: nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				_, _ = w.Write([]byte(httpBody)) // wrk has gone: nothing to tell anybody
			}),
			ErrorLog: log.New(io.Discard, "", 0), // wrk ends without a farewell
		}
		if len(order.Certificate) > 0 {
			certificate, err := tls.X509KeyPair(order.Certificate, order.Certificate)
			if err != nil {
				return none{}, fmt.Errorf("read the certificate: %w", err)
			}
			server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
			go func() { _ = server.ServeTLS(listener, "", "") }() // until the process ends
			return none{}, nil
		}
		go func() { _ = server.Serve(listener) }() // until the process ends
		return none{}, nil
	})}
}

const nginxConfiguration = `daemon off;
master_process off;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
	access_log off;
	sendfile on;
	keepalive_requests 1000000000;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server { listen %[2]s%[3]s; root %[1]s; location / { index none; try_files /body.txt =404; } }
}
`

// nginxRole runs nginx, which ends with this process.
func nginxRole() operations {
	return operations{"finish": finish(), "listen": operation(func(order httpListen) (none, error) {
		directory, err := os.MkdirTemp("", "bench-nginx-")
		if err != nil {
			return none{}, err
		}
		certificate := filepath.Join(directory, "certificate.pem")
		secure := ""
		if len(order.Certificate) > 0 {
			secure = fmt.Sprintf(" ssl; ssl_certificate %[1]s; ssl_certificate_key %[1]s", certificate)
		}
		configuration := filepath.Join(directory, "nginx.conf")
		for file, content := range map[string]string{
			configuration:                        fmt.Sprintf(nginxConfiguration, directory, httpAddress, secure),
			filepath.Join(directory, "body.txt"): httpBody,
			certificate:                          string(order.Certificate),
		} {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				return none{}, err
			}
		}
		command := exec.Command("nginx", "-c", configuration)
		command.Stderr = os.Stderr
		command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := command.Start(); err != nil {
			return none{}, fmt.Errorf("start nginx (apt install nginx-light): %w", err)
		}
		return none{}, awaitListener(nginxName, httpPort)
	})}
}

// awaitListener waits until a server listens.
func awaitListener(name string, port int) error {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if connection, err := net.Dial("tcp4", address); err == nil {
			return connection.Close()
		}
	}
	return fmt.Errorf("%s does not listen after 5s", name)
}

// wrkOrder is how long wrk is to run.
type wrkOrder struct {
	Window time.Duration
	Scheme string
}

// wrkResult is what wrk says.
type wrkResult struct {
	Requests  int
	PerSecond float64
	Errors    string
	Median    time.Duration
	P99       time.Duration
}

func wrkRole() operations {
	return operations{"run": operation(func(order wrkOrder) (wrkResult, error) {
		seconds := max(1, int(order.Window.Round(time.Second).Seconds()))
		output, err := exec.Command("wrk", "-t2", "-c", strconv.Itoa(httpConnections), "-d", strconv.Itoa(seconds)+"s",
			"--latency", order.Scheme+"://"+httpAddress+"/greeting").CombinedOutput()
		if err != nil {
			return wrkResult{}, fmt.Errorf("run wrk (apt install wrk): %w: %s", err, output)
		}
		return parseWrk(string(output))
	})}
}

func parseWrk(output string) (result wrkResult, err error) {
	find := func(pattern string) string {
		if match := regexp.MustCompile(pattern).FindStringSubmatch(output); match != nil {
			return match[1]
		}
		return ""
	}
	var errs [4]error
	result.Requests, errs[0] = strconv.Atoi(find(`(\d+) requests in`))
	result.PerSecond, errs[1] = strconv.ParseFloat(find(`Requests/sec:\s+([\d.]+)`), 64)
	result.Median, errs[2] = time.ParseDuration(find(`\n\s+50%\s+(\S+)`))
	result.P99, errs[3] = time.ParseDuration(find(`\n\s+99%\s+(\S+)`))
	result.Errors = find(`((?:Socket errors|Non-2xx).*)`)
	if err := errors.Join(errs[:]...); err != nil {
		return result, fmt.Errorf("read what wrk says: %w: %s", err, output)
	}
	return result, nil
}

// httpWindow is what came of one window of requests.
type httpWindow = window[wrkResult, none]

func (r wrkResult) units() int         { return r.Requests }
func (r wrkResult) perSecond() float64 { return r.PerSecond }

// httpReceiver has the HTTP probe alone, which tells of one service only: what else the host does is not counted.
func httpReceiver(port int, traces bool) *receiverOrder {
	config := map[string]any{
		"http::enabled": true, "tcp::enabled": false,
		"select::include": []any{map[string]any{"port": strconv.Itoa(port)}},
	}
	return &receiverOrder{Config: config, Probe: http.ProbeName, Traces: traces}
}

// httpVariants are what all scenarios with requests compare.
func httpVariants(port int) []variant {
	return []variant{
		{"without", nil},
		{"metrics", httpReceiver(port, false)},
		{"metrics + traces", httpReceiver(port, true)},
	}
}

func runHTTP(opts options, r *report) error {
	for _, server := range []string{httpServerName, nginxName} {
		measured, err := runRequests(server, httpListen{}, opts, r)
		if err != nil {
			return err
		}
		throughput := measured.compared.ratio(2)
		r.target(server+": throughput with metrics and traces / without", ">= 0.93, hoped 0.96", throughput.format("%.3f"), throughput.Median >= 0.93)
		latency := measured.compared.medianOf(2, medianLatency) / measured.compared.medianOf(0, medianLatency)
		r.target(server+": median latency with / without", "<= 1.06", fmt.Sprintf("%.3f", latency), latency <= 1.06)
		r.target(server+": BPF time per request, both ends", "<= 2.5 us", fmt.Sprintf("%.2f us", measured.programs), measured.programs <= 2.5)
		processorTarget(r, server, "request", measured.compared.processor(2))
		measured.complete(server, r)
	}
	return nil
}

// processorTarget judges what the receiver's own process takes with metrics and traces.
func processorTarget(r *report, name, unit string, spent spread) {
	r.target(titled(name, "processor time of the receiver per "+unit+", metrics and traces"), "<= 3 us", spent.format("%.2f")+" us", spent.Median <= 3)
}

// measuredRequests is what wrk measured of one server.
type measuredRequests struct {
	compared *comparison[wrkResult, none]
	programs float64 // microseconds for each request
}

// runRequests measures a server by wrk, and prints what comes of it without judging.
func runRequests(server string, listen httpListen, opts options, r *report) (measured measuredRequests, err error) {
	requests := traffic{
		server: server, client: wrkName, listen: listen, run: wrkOrder{Window: opts.window, Scheme: listen.scheme()},
		settings: namespaceSettings(true), life: opts.window + 60*time.Second,
	}
	if measured.compared, err = compare[wrkResult, none](server, requests, httpVariants(httpPort), opts, r); err != nil {
		return measured, err
	}
	measured.programs, _, err = withStatistics[wrkResult, none](server, "request", requests, httpReceiver(httpPort, true), r)
	if err != nil {
		return measured, err
	}
	measured.compared.table(r, server, "request",
		column[wrkResult, none]{"p50 us", "%.0f", medianLatency},
		column[wrkResult, none]{"p99 us", "%.0f", func(w *httpWindow) float64 { return float64(w.client.P99.Nanoseconds()) / 1e3 }})
	return measured, nil
}

func medianLatency(w *httpWindow) float64 { return float64(w.client.Median.Nanoseconds()) / 1e3 }

// complete judges whether every request was seen.
func (m *measuredRequests) complete(server string, r *report) {
	requests := 0
	var missing []string
	for _, w := range m.compared.observed() {
		requests += w.client.Requests
		missing = append(missing, httpDifferences(w)...)
	}
	r.target(server+": requests seen", "all", textOr(missing, fmt.Sprintf("all of %d, both ends", requests)), len(missing) == 0)
}

// httpDifferences compares with what wrk has counted. At its end it leaves requests unanswered that the server may have
// answered: at most one for each connection.
func httpDifferences(w *httpWindow) []string {
	var found []string
	for _, role := range []string{"client", "server"} {
		if got := w.totals.Exchanges[role]["GET 200"]; got < w.client.Requests || got > w.client.Requests+httpConnections {
			found = append(found, fmt.Sprintf("wrk has %d answers, the receiver counts %d for the %s", w.client.Requests, got, role))
		}
	}
	if w.client.Errors != "" {
		found = append(found, w.client.Errors)
	}
	return append(found, lostOf(http.ProbeName, w.after)...)
}
