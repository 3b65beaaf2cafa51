//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	httpAddress     = "127.0.0.1:8080"
	httpConnections = 32
	httpBody        = "Hello, this is a response of some 100 bytes, which is what a small answer of an interface often has.\n"
)

// httpServerRole is a Go server.
func httpServerRole() operations {
	return operations{"listen": operation(func(none) (none, error) {
		listener, err := net.Listen("tcp4", httpAddress)
		if err != nil {
			return none{}, err
		}
		server := &http.Server{
			ReadHeaderTimeout: time.Minute,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(httpBody)) // wrk has gone: nothing to tell anybody
			}),
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
	server { listen %[2]s; root %[1]s; location / { index none; try_files /body.txt =404; } }
}
`

// nginxRole runs nginx, which ends with this process.
func nginxRole() operations {
	return operations{"listen": operation(func(none) (none, error) {
		directory, err := os.MkdirTemp("", "bench-nginx-")
		if err != nil {
			return none{}, err
		}
		configuration := filepath.Join(directory, "nginx.conf")
		for file, content := range map[string]string{
			configuration:                        fmt.Sprintf(nginxConfiguration, directory, httpAddress),
			filepath.Join(directory, "body.txt"): httpBody,
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
		return none{}, awaitListener()
	})}
}

func awaitListener() error {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if connection, err := net.Dial("tcp4", httpAddress); err == nil {
			return connection.Close()
		}
	}
	return errors.New("nginx does not listen after 5s")
}

// wrkOrder is how long wrk is to run.
type wrkOrder struct{ Window time.Duration }

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
			"--latency", "http://"+httpAddress+"/greeting").CombinedOutput()
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

// httpWindow is what came of one window.
type httpWindow struct {
	wrk           wrkResult
	before, after receiverUsage
	totals        receiverTotals
}

// perRequest is a time in microseconds for each request, both of its ends.
func (w *httpWindow) perRequest(spent time.Duration) float64 {
	return float64(spent.Nanoseconds()) / 1e3 / float64(w.wrk.Requests)
}

func runHTTPWindow(server string, window time.Duration, order *receiverOrder) (*httpWindow, error) {
	life := window + 60*time.Second
	ns, err := newNamespace(namespaceSettings(true))
	if err != nil {
		return nil, err
	}
	defer func() {
		ns.close()
		time.Sleep(settle)
	}()
	w := &httpWindow{}
	var receiver *child
	if order != nil {
		if receiver, err = startReceiverChild(order, life); err != nil {
			return nil, err
		}
		defer receiver.stop()
	}
	serving, err := ns.start(server, life)
	if err != nil {
		return nil, err
	}
	defer serving.stop()
	if _, err := call[none](serving, "listen", none{}); err != nil {
		return nil, err
	}
	client, err := ns.start(wrkName, life)
	if err != nil {
		return nil, err
	}
	defer client.stop()
	time.Sleep(settle)
	if receiver != nil {
		if w.before, err = call[receiverUsage](receiver, "use", none{}); err != nil {
			return nil, err
		}
	}
	if w.wrk, err = call[wrkResult](client, "run", wrkOrder{window}); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	if receiver != nil {
		if w.after, err = call[receiverUsage](receiver, "use", none{}); err != nil {
			return nil, err
		}
		if w.totals, err = call[receiverTotals](receiver, "stop", none{}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func httpReceiver(traces bool, more map[string]any) *receiverOrder {
	config := map[string]any{"http::enabled": true, "tcp::enabled": false, "kernel::ring_bytes": 16 << 20}
	for key, value := range more {
		config[key] = value
	}
	return &receiverOrder{Config: config, Probe: "http", Traces: traces}
}

func runHTTP(opts options, r *report) error {
	variants := []variant{
		{"without", nil},
		{"metrics", httpReceiver(false, nil)},
		{"metrics + traces", httpReceiver(true, nil)},
	}
	for _, server := range []string{httpServerName, nginxName} {
		if err := runHTTPAgainst(server, variants, opts, r); err != nil {
			return err
		}
	}
	return nil
}

func runHTTPAgainst(server string, variants []variant, opts options, r *report) error {
	rates := make([][][]float64, len(variants))
	windows := make([][]*httpWindow, len(variants))
	var missing []string
	requests := 0
	for round := range opts.rounds {
		for i := range variants {
			rates[i] = append(rates[i], nil)
		}
		for _, i := range mirrored(len(variants)) {
			order := variants[i].order
			if order != nil && opts.profile != "" && round == 0 {
				profiled := *order
				profiled.Profile = opts.profile + "." + strings.ReplaceAll(server+"."+variants[i].name, " ", "")
				order = &profiled
			}
			w, err := runHTTPWindow(server, opts.window, order)
			if err != nil {
				return err
			}
			rates[i][round] = append(rates[i][round], w.wrk.PerSecond)
			windows[i] = append(windows[i], w)
			if order != nil {
				requests += w.wrk.Requests
				missing = append(missing, w.differences()...)
			}
		}
		r.progress("%s, round %d: requests/s %s", server, round+1, roundText(variants, rates, round))
	}
	statistics, rows, err := httpStatistics(server, opts)
	if err != nil {
		return err
	}
	r.table(server+": BPF programs, by the kernel's statistics (both ends of a request)",
		[]string{"program", "runs per request", "ns per run", "us per request"}, rows)
	reportHTTP(server, r, variants, rates, windows)

	throughput := spreadOf(ratios(rates[2], rates[0]))
	r.target(server+": throughput with metrics and traces / without", ">= 0.93, hoped 0.96", throughput.format("%.3f"), throughput.Median >= 0.93)
	latency := medianLatency(windows[2]) / medianLatency(windows[0])
	r.target(server+": median latency with / without", "<= 1.06", fmt.Sprintf("%.3f", latency), latency <= 1.06)
	r.target(server+": BPF time per request, both ends", "<= 2.5 us", fmt.Sprintf("%.2f us", statistics), statistics <= 2.5)
	spent := httpProcessor(windows[2])
	r.target(server+": processor time of the receiver per request, metrics and traces", "<= 3 us", spent.format("%.2f")+" us", spent.Median <= 3)
	seen := fmt.Sprintf("all of %d, both ends", requests)
	if len(missing) > 0 {
		seen = strings.Join(missing, "; ")
	}
	r.target(server+": requests seen", "all", seen, len(missing) == 0)
	return nil
}

// differences compares with what wrk has counted. At its end it leaves requests unanswered that the server may have answered:
// at most one for each connection.
func (w *httpWindow) differences() []string {
	var found []string
	for _, role := range []string{"client", "server"} {
		if got := w.totals.Exchanges[role]; got < w.wrk.Requests || got > w.wrk.Requests+httpConnections {
			found = append(found, fmt.Sprintf("wrk has %d answers, the receiver counts %d for the %s", w.wrk.Requests, got, role))
		}
	}
	if w.wrk.Errors != "" {
		found = append(found, w.wrk.Errors)
	}
	for reason, count := range w.after.Lost {
		if count > 0 && strings.HasPrefix(reason, "http ") {
			found = append(found, fmt.Sprintf("lost: %s %d", reason, count))
		}
	}
	return found
}

func medianLatency(windows []*httpWindow) float64 {
	var values []float64
	for _, w := range windows {
		values = append(values, float64(w.wrk.Median))
	}
	return median(values)
}

func httpProcessor(windows []*httpWindow) spread {
	var values []float64
	for _, w := range windows {
		values = append(values, w.perRequest(w.after.User+w.after.System-w.before.User-w.before.System))
	}
	return spreadOf(values)
}

func reportHTTP(server string, r *report, variants []variant, rates [][][]float64, windows [][]*httpWindow) {
	var rows [][]string
	for i, v := range variants {
		var rate, p50, p99, resident []float64
		for _, w := range windows[i] {
			rate = append(rate, w.wrk.PerSecond)
			p50 = append(p50, float64(w.wrk.Median.Nanoseconds())/1e3)
			p99 = append(p99, float64(w.wrk.P99.Nanoseconds())/1e3)
			resident = append(resident, float64(w.after.ResidentBytes)/(1<<20))
		}
		row := []string{
			v.name, spreadOf(rate).format("%.0f"), spreadOf(ratios(rates[i], rates[0])).format("%.3f"),
			fmt.Sprintf("%.0f", median(p50)), fmt.Sprintf("%.0f", median(p99)),
		}
		if v.order == nil {
			row = append(row, "-", "-")
		} else {
			row = append(row, httpProcessor(windows[i]).format("%.2f"), fmt.Sprintf("%.0f", median(resident)))
		}
		rows = append(rows, row)
	}
	r.table(server+": requests (median, min .. max); latency and processor time in us",
		[]string{"receiver", "requests/s", "ratio", "p50", "p99", "receiver per request", "RSS MiB"}, rows)
}

// httpStatistics has the kernel account for the programs' time, in windows of their own because that costs.
func httpStatistics(server string, opts options) (microseconds float64, rows [][]string, err error) {
	runs, nanoseconds, perRequest := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	var totals []float64
	for range statisticsWindows {
		w, err := runHTTPWindow(server, opts.window, httpReceiver(true, map[string]any{"kernel::program_stats": true}))
		if err != nil {
			return 0, nil, err
		}
		total := time.Duration(0)
		for name, after := range w.after.Programs {
			before := w.before.Programs[name]
			ran, spent := after.Runs-before.Runs, after.Time-before.Time
			if ran == 0 {
				continue
			}
			total += spent
			runs[name] = append(runs[name], float64(ran)/float64(w.wrk.Requests))
			nanoseconds[name] = append(nanoseconds[name], float64(spent.Nanoseconds())/float64(ran))
			perRequest[name] = append(perRequest[name], w.perRequest(spent))
		}
		totals = append(totals, w.perRequest(total))
	}
	for name := range runs {
		rows = append(rows, []string{
			name, fmt.Sprintf("%.2f", median(runs[name])), spreadOf(nanoseconds[name]).format("%.0f"), spreadOf(perRequest[name]).format("%.3f"),
		})
	}
	rows = append(rows, []string{"all", "", "", spreadOf(totals).format("%.3f")})
	return median(totals), rows, nil
}
