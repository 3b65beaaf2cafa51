//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mixedGoAtOnce   = 8
	mixedCurls      = 2
	curlTransfers   = 200 // of a process
	mixedPipelines  = 2
	pipelineLongest = 4
	// mixedPause is what a worker waits after a request, in all languages: without, what programs log of durations is mostly
	// how long they wait for a processor before they look at the clock.
	mixedPause = 5 * time.Millisecond
	// mixedPatience is how long a request may take.
	mixedPatience = 20 * time.Second
)

// mixedOrder is how many requests are made. The seed decides which.
type mixedOrder struct {
	Count     int
	Seed      uint64
	Directory string // of the programs
}

// mixedResult is what all clients have done.
type mixedResult struct {
	Records []mixedRecord
	Took    time.Duration
}

func (r mixedResult) units() int         { return len(r.Records) }
func (r mixedResult) perSecond() float64 { return float64(len(r.Records)) / r.Took.Seconds() }

func mixedClientRole() operations { return operations{"run": operation(makeMixed)} }

// makeMixed has all clients make their requests, at the same time.
func makeMixed(order mixedOrder) (mixedResult, error) {
	plan := planMixed(order)
	var (
		result mixedResult
		errs   []error
		mutex  sync.Mutex
		group  sync.WaitGroup
	)
	start := time.Now()
	for client, run := range map[string]func([]mixedRequest) ([]mixedRecord, error){
		mixedGo:         makeGo,
		mixedPipelining: pipeline,
		mixedCurl:       func(planned []mixedRequest) ([]mixedRecord, error) { return runCurls(order.Directory, planned) },
		mixedPython: func(planned []mixedRequest) ([]mixedRecord, error) {
			return runClient(planned, mixedPython, "python3", filepath.Join(order.Directory, "client.py"))
		},
		mixedNode: func(planned []mixedRequest) ([]mixedRecord, error) {
			return runClient(planned, mixedNode, "node", filepath.Join(order.Directory, "client.mjs"))
		},
	} {
		group.Go(func() {
			records, err := run(plan[client])
			mutex.Lock()
			defer mutex.Unlock()
			result.Records, errs = append(result.Records, records...), append(errs, err)
		})
	}
	group.Wait()
	result.Took = time.Since(start)
	return result, errors.Join(errs...)
}

// runClient has a program make requests that it is told of, and reads what came of them.
func runClient(planned []mixedRequest, program, name string, arguments ...string) ([]mixedRecord, error) {
	p, err := startMixed(name, arguments...)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(p.input).Encode(planned); err != nil {
		_ = p.input.Close()
		return nil, errors.Join(fmt.Errorf("tell %s what to do: %w", p.command, err), p.command.Wait())
	}
	return p.finish(program)
}

// eachOf does something with all items, so many at once, with pauses. It ends at the first error of each worker.
func eachOf[Item, Result any](items []Item, atOnce int, do func(Item) (Result, error)) ([]Result, error) {
	results, errs := make([]Result, len(items)), make([]error, atOnce)
	next := make(chan int, len(items))
	for i := range items {
		next <- i
	}
	close(next)
	var group sync.WaitGroup
	for worker := range atOnce {
		group.Go(func() {
			for i := range next {
				if results[i], errs[worker] = do(items[i]); errs[worker] != nil {
					return
				}
				time.Sleep(mixedPause)
			}
		})
	}
	group.Wait()
	return results, errors.Join(errs...)
}

// goClients are ways to send.
func goClients() map[mixedWay]*http.Client {
	clients := map[mixedWay]*http.Client{}
	for way, transport := range map[mixedWay]*http.Transport{
		mixedKept: {}, mixedEach: {DisableKeepAlives: true}, mixedHTTP2: {Protocols: &http.Protocols{}},
	} {
		if transport.Protocols != nil {
			transport.Protocols.SetUnencryptedHTTP2(true)
		}
		transport.DisableCompression = true
		transport.MaxIdleConnsPerHost = mixedGoAtOnce
		clients[way] = &http.Client{
			Timeout:       mixedPatience,
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return clients
}

func makeGo(planned []mixedRequest) ([]mixedRecord, error) {
	clients := goClients()
	defer func() {
		for _, client := range clients {
			client.CloseIdleConnections()
		}
	}()
	return eachOf(planned, mixedGoAtOnce, func(r mixedRequest) (mixedRecord, error) { return makeRequest(clients[r.way], r) })
}

// record is what is known before the answer.
func (r *mixedRequest) record(program string) mixedRecord {
	return mixedRecord{Program: program, Method: r.Method, Path: r.Path, Port: r.Port,
		SentBytes: int64(r.Size), ChunkedRequest: r.Chunked}
}

func makeRequest(client *http.Client, planned mixedRequest) (record mixedRecord, err error) {
	record = planned.record(mixedGo)
	var body io.Reader
	if planned.Size > 0 || planned.Chunked {
		body = io.LimitReader(zeroReader{}, int64(planned.Size))
	}
	request, err := http.NewRequest(planned.Method, planned.url(), body)
	if err != nil {
		return record, err
	}
	request.ContentLength = int64(planned.Size)
	if planned.Chunked {
		request.ContentLength = -1
	}
	request.Header.Set(mixedHeader, planned.Bench)

	var start time.Time // when there is a connection
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { start = time.Now() }}
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return record, fmt.Errorf("ask for %s: %w", planned.url(), err)
	}
	defer response.Body.Close()
	if record.ReceivedBytes, err = io.Copy(io.Discard, response.Body); err != nil {
		return record, fmt.Errorf("read the answer to %s: %w", planned.url(), err)
	}
	record.Ns = int64(time.Since(start))
	record.answered(response)
	return record, nil
}

func (r *mixedRecord) answered(response *http.Response) {
	r.Status, r.Version = response.StatusCode, httpVersion(response.ProtoMajor, response.ProtoMinor)
	r.ChunkedResponse = response.ContentLength < 0
}

// zeroReader reads zeros without end.
type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// pipeline writes a few requests at once, and reads their answers, on connections that are kept.
func pipeline(planned []mixedRequest) ([]mixedRecord, error) {
	var bursts [][]mixedRequest
	waiting := map[int][]mixedRequest{}
	for _, request := range planned {
		at := request.Port
		waiting[at] = append(waiting[at], request)
		if longest := 2 + len(bursts)%(pipelineLongest-1); len(waiting[at]) >= longest {
			bursts, waiting[at] = append(bursts, waiting[at]), nil
		}
	}
	for _, left := range waiting {
		if len(left) > 0 {
			bursts = append(bursts, left)
		}
	}
	idle := map[int]chan *pipelinedConnection{}
	for port := range mixedServers() {
		idle[port] = make(chan *pipelinedConnection, mixedPipelines)
		for range mixedPipelines {
			idle[port] <- &pipelinedConnection{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
		}
	}
	records, err := eachOf(bursts, mixedPipelines, func(burst []mixedRequest) ([]mixedRecord, error) {
		of := idle[burst[0].Port]
		connection := <-of
		defer func() { of <- connection }()
		return connection.run(burst)
	})
	for _, of := range idle {
		for range mixedPipelines {
			(<-of).close()
		}
	}
	var all []mixedRecord
	for _, burst := range records {
		all = append(all, burst...)
	}
	return all, err
}

// pipelinedConnection is dialed when it is needed.
type pipelinedConnection struct {
	address string
	net.Conn
	reader *bufio.Reader
}

func (c *pipelinedConnection) close() {
	if c.Conn != nil {
		c.Conn.Close()
		c.Conn = nil
	}
}

func (c *pipelinedConnection) run(burst []mixedRequest) (records []mixedRecord, err error) {
	if c.Conn == nil {
		if c.Conn, err = net.Dial("tcp4", c.address); err != nil {
			return nil, err
		}
		c.reader = bufio.NewReader(c.Conn)
	}
	if err := c.SetDeadline(time.Now().Add(mixedPatience)); err != nil {
		return nil, err
	}
	var messages bytes.Buffer
	for _, request := range burst {
		request.writeRaw(&messages)
	}
	start := time.Now()
	if _, err := c.Write(messages.Bytes()); err != nil {
		return nil, fmt.Errorf("ask for %s and what follows: %w", burst[0].url(), err)
	}
	for i, request := range burst {
		record := request.record(mixedPipelining)
		response, err := http.ReadResponse(c.reader, &http.Request{Method: request.Method})
		if err == nil {
			record.ReceivedBytes, err = io.Copy(io.Discard, response.Body)
			err = errors.Join(err, response.Body.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("read the answer to %s, %d. of %d: %w", request.url(), i+1, len(burst), err)
		}
		record.Ns = int64(time.Since(start))
		record.answered(response)
		records = append(records, record)
		if response.Close {
			c.close()
		}
	}
	return records, nil
}

// writeRaw writes a message with a head as small as may be.
func (r *mixedRequest) writeRaw(to *bytes.Buffer) {
	fmt.Fprintf(to, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s: %s\r\n", r.Method, r.Path, r.Port, mixedHeader, r.Bench)
	body := make([]byte, r.Size)
	switch {
	case r.Chunked:
		to.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if r.Size > 0 {
			fmt.Fprintf(to, "%x\r\n%s\r\n", r.Size, body)
		}
		to.WriteString("0\r\n\r\n")
	case r.hasBody():
		fmt.Fprintf(to, "Content-Length: %d\r\n\r\n%s", r.Size, body)
	default:
		to.WriteString("\r\n")
	}
}

// runCurls has curl make requests, many by each process. By HTTP/2 it is one: with prior knowledge, curl 7.88 cannot use a
// connection again.
func runCurls(directory string, planned []mixedRequest) ([]mixedRecord, error) {
	var batches [][]mixedRequest
	var batch []mixedRequest
	for _, request := range planned {
		if request.way == mixedHTTP2 {
			batches = append(batches, []mixedRequest{request})
			continue
		}
		if batch = append(batch, request); len(batch) == curlTransfers {
			batches, batch = append(batches, batch), nil
		}
	}
	if len(batch) > 0 {
		batches = append(batches, batch)
	}
	records, err := eachOf(batches, mixedCurls, func(batch []mixedRequest) ([]mixedRecord, error) {
		return runCurl(directory, batch)
	})
	var all []mixedRecord
	for _, batch := range records {
		all = append(all, batch...)
	}
	return all, err
}

// curlFormat is what curl is to say of a transfer, which begins when there is a connection.
const curlFormat = `{"Method":"%{method}","URL":"%{url}","Code":"%{response_code}","Version":"%{http_version}",` +
	`"ReceivedBytes":%{size_download},"Uploaded":%{size_upload},"Coding":"%header{transfer-encoding}",` +
	`"Total":%{time_total},"Before":%{time_pretransfer},"Error":"%{errormsg}"}`

// curlConfiguration is a file for curl's option --config.
func curlConfiguration(directory string, batch []mixedRequest) (string, error) {
	var text strings.Builder
	for i, request := range batch {
		if i > 0 {
			text.WriteString("next\n")
		}
		option := func(name, value string) { fmt.Fprintf(&text, "%s = %q\n", name, value) }
		option("url", request.url())
		option("header", mixedHeader+": "+request.Bench)
		option("output", os.DevNull)
		option("write-out", curlFormat+"\n")
		option("max-time", strconv.Itoa(int(mixedPatience.Seconds())))
		if request.way == mixedHTTP2 {
			text.WriteString("http2-prior-knowledge\n")
		}
		if request.Chunked {
			option("header", "Transfer-Encoding: chunked")
		}
		if request.Method == http.MethodHead {
			text.WriteString("head\n")
		} else {
			option("request", request.Method)
		}
		if request.hasBody() {
			body := filepath.Join(directory, fmt.Sprintf("body-%d", request.Size))
			file, err := os.OpenFile(body, os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return "", err
			}
			if err := errors.Join(file.Truncate(int64(request.Size)), file.Close()); err != nil {
				return "", err
			}
			option("upload-file", body)
		}
	}
	return text.String(), nil
}

func runCurl(directory string, batch []mixedRequest) (records []mixedRecord, err error) {
	configuration, err := curlConfiguration(directory, batch)
	if err != nil {
		return nil, fmt.Errorf("tell curl what to do: %w", err)
	}
	command := exec.Command("curl", "--disable", "--no-progress-meter", "--config", "-")
	command.Stdin, command.Stderr = strings.NewReader(configuration), os.Stderr
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("run curl: %w", err)
	}
	byURL := map[string]mixedRequest{}
	for _, request := range batch {
		byURL[request.url()] = request
	}
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var line struct {
			mixedRecord
			URL, Code, Coding, Error string
			Uploaded                 int64
			Total, Before            float64
		}
		if err := decoder.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return records, fmt.Errorf("read what curl says: %w", err)
		}
		request, known := byURL[line.URL]
		if !known || line.Error != "" {
			return records, fmt.Errorf("curl says of %q: %s", line.URL, line.Error)
		}
		record := request.record(mixedCurl)
		record.Method, record.Version, record.ReceivedBytes = line.Method, line.Version, line.ReceivedBytes
		if record.Status, err = strconv.Atoi(line.Code); err != nil {
			return records, fmt.Errorf("read the status that curl says: %w", err)
		}
		if !request.Chunked { // else curl counts the chunks' own bytes too
			record.SentBytes = line.Uploaded
		}
		record.ChunkedResponse = strings.EqualFold(line.Coding, "chunked")
		record.Ns = int64((line.Total - line.Before) * 1e9)
		records = append(records, record)
	}
	if len(records) != len(batch) {
		return records, fmt.Errorf("curl tells of %d transfers of %d", len(records), len(batch))
	}
	return records, nil
}
