//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	mixedPort    = 8082
	mixedAddress = "127.0.0.1:8082"
	mixedAtOnce  = 16
	// largeBody is that of one request or response in mixedLarge.
	largeBody, mixedLarge = 10 << 20, 1000
)

// mixedRecord is what a program says of a request.
type mixedRecord struct {
	Method, Path             string
	Status                   int
	SentBytes, ReceivedBytes int64 // of bodies
	// HTTP2 and what follows say how the messages were sent.
	HTTP2, ChunkedRequest, ChunkedResponse bool

	Ns int64
}

// mixedOrder is how many requests are made. The seed decides which.
type mixedOrder struct {
	Count int
	Seed  uint64
}

// mixedResult is what a client has done.
type mixedResult struct {
	Records []mixedRecord
	Took    time.Duration
}

// mixedHeader tells a server what to answer: status, size, and whether it is to be chunked.
const mixedHeader = "Bench"

// mixedServerRole answers as it is asked to, by HTTP/1 and HTTP/2.
func mixedServerRole() operations {
	var (
		mutex   sync.Mutex
		records []mixedRecord
		errs    []error
	)
	zeros := make([]byte, 64<<10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		start := time.Now()
		record := mixedRecord{Method: request.Method, Path: request.URL.Path, HTTP2: request.ProtoMajor == 2,
			ChunkedRequest: request.ContentLength < 0}
		err := record.answer(w, request, zeros)
		record.Ns = int64(time.Since(start))
		mutex.Lock()
		defer mutex.Unlock()
		records, errs = append(records, record), append(errs, err)
	})
	return operations{
		"listen": operation(func(none) (none, error) {
			listener, err := net.Listen("tcp4", mixedAddress)
			if err != nil {
				return none{}, err
			}
			server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: handler, Protocols: &http.Protocols{}}
			server.Protocols.SetHTTP1(true)
			server.Protocols.SetUnencryptedHTTP2(true)
			go func() { _ = server.Serve(listener) }() // until the process ends
			return none{}, nil
		}),
		"finish": operation(func(none) ([]mixedRecord, error) {
			mutex.Lock()
			defer mutex.Unlock()
			return records, errors.Join(errs...)
		}),
	}
}

// answer serves a request.
func (r *mixedRecord) answer(w http.ResponseWriter, request *http.Request, zeros []byte) (err error) {
	if r.ReceivedBytes, err = io.Copy(io.Discard, request.Body); err != nil {
		return fmt.Errorf("read the body of %s: %w", r.Path, err)
	}
	var size int
	var chunked bool
	if _, err := fmt.Sscanf(request.Header.Get(mixedHeader), "%d %d %t", &r.Status, &size, &chunked); err != nil {
		return fmt.Errorf("read what %s asks for: %w", r.Path, err)
	}
	bodiless := r.Status == http.StatusNoContent || r.Status == http.StatusNotModified
	r.ChunkedResponse = chunked && !bodiless
	if !chunked && !bodiless {
		w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	w.WriteHeader(r.Status)
	if bodiless || r.Method == http.MethodHead {
		return nil
	}
	if chunked {
		w.(http.Flusher).Flush()
	}
	for left := size; left > 0; {
		n, err := w.Write(zeros[:min(left, len(zeros))])
		if err != nil {
			return fmt.Errorf("write the body of %s: %w", r.Path, err)
		}
		left -= n
		r.SentBytes += int64(n)
	}
	return nil
}

func mixedClientRole() operations { return operations{"run": operation(makeMixed)} }

// mixedClients are ways to send: by HTTP/1 over connections that are kept, or over one each, and by HTTP/2.
func mixedClients() []*http.Client {
	var clients []*http.Client
	for _, transport := range []*http.Transport{{}, {DisableKeepAlives: true}, {Protocols: &http.Protocols{}}} {
		if transport.Protocols != nil {
			transport.Protocols.SetUnencryptedHTTP2(true)
		}
		transport.DisableCompression = true
		transport.MaxIdleConnsPerHost = mixedAtOnce
		clients = append(clients, &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		})
	}
	return clients
}

func makeMixed(order mixedOrder) (mixedResult, error) {
	clients := mixedClients()
	result := mixedResult{Records: make([]mixedRecord, order.Count)}
	errs := make([]error, order.Count)
	numbers := make(chan int)
	var group sync.WaitGroup
	start := time.Now()
	for range mixedAtOnce {
		group.Go(func() {
			for number := range numbers {
				random := rand.New(rand.NewPCG(order.Seed, uint64(number)))
				client := clients[random.IntN(len(clients))]
				result.Records[number], errs[number] = makeRequest(client, random, number)
			}
		})
	}
	for number := range order.Count {
		numbers <- number
	}
	close(numbers)
	group.Wait()
	result.Took = time.Since(start)
	for _, client := range clients {
		client.CloseIdleConnections()
	}
	return result, errors.Join(errs...)
}

// mixedSize is mostly small.
func mixedSize(random *rand.Rand) int {
	switch random.IntN(20) {
	case 0:
		return random.IntN(256 << 10)
	case 1, 2, 3, 4:
		return random.IntN(16 << 10)
	case 5, 6, 7, 8:
		return 0
	default:
		return random.IntN(1 << 10)
	}
}

// makeRequest makes the request of a number, whatever random says that it is.
func makeRequest(client *http.Client, random *rand.Rand, number int) (record mixedRecord, err error) {
	methods := []string{"GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	statuses := []int{200, 200, 200, 200, 201, 204, 302, 304, 400, 404, 500, 503}
	record = mixedRecord{Method: methods[random.IntN(len(methods))], Path: "/mixed/" + strconv.Itoa(number)}
	status, size, chunked := statuses[random.IntN(len(statuses))], mixedSize(random), random.IntN(3) == 0
	sends := slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch}, record.Method)
	sent := 0
	if sends {
		sent = mixedSize(random)
		record.ChunkedRequest = random.IntN(3) == 0
	}
	switch number % mixedLarge {
	case mixedLarge / 3:
		record.Method, sent = "POST", random.IntN(largeBody+1)
	case mixedLarge / 2:
		record.Method, status, size, sent, record.ChunkedRequest = "GET", 200, random.IntN(largeBody+1), 0, false
	}
	var body io.Reader
	if sent > 0 || record.ChunkedRequest {
		body = io.LimitReader(zeroReader{}, int64(sent))
	}
	request, err := http.NewRequest(record.Method, "http://"+mixedAddress+record.Path, body)
	if err != nil {
		return record, err
	}
	request.ContentLength = int64(sent)
	if record.ChunkedRequest {
		request.ContentLength = -1
	}
	request.Header.Set(mixedHeader, fmt.Sprint(status, size, chunked))

	start := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return record, fmt.Errorf("ask for %s: %w", record.Path, err)
	}
	defer response.Body.Close()
	if record.ReceivedBytes, err = io.Copy(io.Discard, response.Body); err != nil {
		return record, fmt.Errorf("read the answer to %s: %w", record.Path, err)
	}
	record.Ns = int64(time.Since(start))
	record.SentBytes = int64(sent)
	record.Status, record.HTTP2 = response.StatusCode, response.ProtoMajor == 2
	record.ChunkedResponse = response.ContentLength < 0
	return record, nil
}

// zeroReader reads zeros without end.
type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
