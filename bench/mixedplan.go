//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
)

// The programs that answer, by their ports, and those that ask.
const (
	mixedGoPort = 8082 + iota
	mixedPythonPort
	mixedNodePort
	mixedNginxPort

	mixedGo         = "go"
	mixedPython     = "python"
	mixedNode       = "node"
	mixedNginx      = "nginx"
	mixedCurl       = "curl"
	mixedPipelining = "go, pipelining"
)

const (
	// largeBody is that of one request or response in mixedLarge.
	largeBody, mixedLarge = 10 << 20, 1000
	// pipelinedBody bounds those of requests that are written at once: their heads are to lie close together.
	pipelinedBody = 16
	// nginxBody bounds those of requests to nginx. It answers without waiting for a body, and a client that gets an answer
	// while it sends may send no more, which is no case to compare: such a body goes out with its head.
	nginxBody = 2000
)

// mixedServers are the names of the programs that answer.
func mixedServers() map[int]string {
	return map[int]string{
		mixedGoPort: mixedGo, mixedPythonPort: mixedPython, mixedNodePort: mixedNode, mixedNginxPort: mixedNginx,
	}
}

// nginxSizes are those of the files that nginx has.
func nginxSizes() []int {
	return []int{0, 1, 100, 512, 1000, 4096, 10_000, 65_536, 100_000, 250_000, 1 << 20, 3_000_000, largeBody}
}

// mixedWay is how a client in Go sends, and curl.
type mixedWay int

const (
	mixedKept mixedWay = iota // over connections that are kept
	mixedEach                 // over a connection for each request
	mixedHTTP2
)

// mixedRequest is one that a client is to make.
type mixedRequest struct {
	Method, Path string
	Port         int
	Bench        string // the header that says what to answer: status, size, and whether the body is to be chunked
	Size         int    // of the body
	Chunked      bool

	client string
	way    mixedWay
}

// mixedHeader tells a server what to answer.
const mixedHeader = "Bench"

func (r *mixedRequest) url() string { return fmt.Sprintf("http://127.0.0.1:%d%s", r.Port, r.Path) }

// hasBody says whether the message has one, be it empty. Other methods have none here.
func (r *mixedRequest) hasBody() bool {
	return slices.Contains([]string{"POST", "PUT", "PATCH"}, r.Method)
}

// planMixed says which requests are made, by client. The seed decides.
func planMixed(order mixedOrder) map[string][]mixedRequest {
	plan := map[string][]mixedRequest{}
	for number := range order.Count {
		request := planRequest(rand.New(rand.NewPCG(order.Seed, uint64(number))), number)
		plan[request.client] = append(plan[request.client], request)
	}
	return plan
}

// planRequest makes up the request of a number, whatever random says that it is.
func planRequest(random *rand.Rand, number int) mixedRequest {
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	r := mixedRequest{
		Path:   "/mixed/" + strconv.Itoa(number),
		Method: pick([]string{"GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}),
		Port:   mixedGoPort + random.IntN(len(mixedServers())),
		client: pick([]string{mixedGo, mixedGo, mixedGo, mixedPython, mixedNode, mixedNode, mixedCurl, mixedPipelining}),
	}
	statuses := []int{200, 200, 200, 200, 201, 204, 302, 304, 400, 404, 500, 503}
	status, size, chunked := statuses[random.IntN(len(statuses))], mixedSize(random), random.IntN(3) == 0
	if r.hasBody() {
		r.Size, r.Chunked = mixedSize(random), random.IntN(3) == 0
	}
	switch number % mixedLarge {
	case mixedLarge / 3:
		r.Method, r.Size = "POST", random.IntN(largeBody+1)
	case mixedLarge / 2:
		r.Method, r.Size, r.Chunked, status, size = "GET", 0, false, 200, random.IntN(largeBody+1)
	}
	switch r.client {
	case mixedGo, mixedCurl:
		// Only one server speaks HTTP/2 without TLS, and only one client makes a connection for each request.
		switch way := mixedWay(random.IntN(3)); {
		case way == mixedHTTP2 && r.Port != mixedGoPort, way == mixedEach && r.client == mixedCurl:
		default:
			r.way = way
		}
	case mixedPipelining:
		r.Size, size = min(r.Size, pipelinedBody), min(size, largeBody/1000)
		if r.Port == mixedNginxPort && (status == 400 || status == 500) {
			status = 404 // after the others nginx closes the connection
		}
	}
	if r.client == mixedCurl {
		if r.Port == mixedNginxPort && r.hasBody() {
			r.Method = "DELETE" // curl asks whether to send a body; nginx counts its 100 Continue as a part of its own
			r.Size = 0
		}
		if r.way == mixedHTTP2 || r.Size == 0 {
			r.Chunked = false // curl 7.88 forgets the last chunk of an empty body, and HTTP/2 has none
		}
	}
	if r.Port == mixedNginxPort {
		r.Size = min(r.Size, nginxBody)
		sizes := nginxSizes()
		at, found := slices.BinarySearch(sizes, size)
		if !found {
			at--
		}
		size = sizes[at]
	}
	r.Bench = fmt.Sprint(status, size, chunked)
	return r
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
