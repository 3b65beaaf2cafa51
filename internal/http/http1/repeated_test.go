package http1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Heads that come again are read as they were, whatever came in between and follows them.
func TestRepeatedHeads(t *testing.T) {
	var requests Requests
	var responses Responses
	for round := range 200 {
		for _, path := range []string{"/a", "/b", fmt.Sprint("/", round)} {
			captured := []byte("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n" + strings.Repeat("b", round%5))
			checkRequests(t, &requests, captured)
			answer := []byte("HTTP/1.1 200 OK\r\nX-Path: " + path + "\r\nContent-Length: 4\r\n\r\n" + strings.Repeat("b", round%5))
			for _, method := range []string{"GET", "HEAD", "CONNECT", ""} {
				checkResponses(t, &responses, answer, []byte(method))
			}
			clear(captured) // the ring has other bytes there
			clear(answer)
		}
	}
}

// A head that comes again is not read again, and what it says does not allocate.
func TestRepeatedHeadsAreRemembered(t *testing.T) {
	var requests Requests
	var responses Responses
	captured := []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	answer := []byte("HTTP/1.1 204 No Content\r\n\r\n")
	first, _ := requests.Parse(captured)
	again, _ := requests.Parse(captured)
	assert.NotSame(t, first, again)
	answered, _ := responses.Parse(answer, nil)
	answeredAgain, _ := responses.Parse(answer, nil)
	assert.NotSame(t, answered, answeredAgain)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		requests.Parse(captured)
		responses.Parse(answer, nil)
	}))
}

// Heads that do not come again are seldom remembered.
func TestOtherHeadsAreSeldomRemembered(t *testing.T) {
	var requests Requests
	learned := 0
	const heads = 10_000
	for i := range heads {
		captured := []byte(fmt.Sprintf("GET / HTTP/1.1\r\nHost: %064d\r\nX-Request-Id: %08d\r\n\r\n", 0, i)) // in one place
		requests.Parse(captured)
		if string(requests.repeated.heads[place(captured)].bytes) == string(captured) {
			learned++
		}
	}
	assert.Equal(t, 14, learned, "the powers of two")

	large := []byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("x", maxRepeatedBytes) + "\r\n\r\n")
	for range 3 {
		checkRequests(t, &requests, large)
	}
	assert.Less(t, len(requests.repeated.heads[place(large)].bytes), len(large))
}

func checkRequests(t *testing.T, requests *Requests, captured []byte) {
	t.Helper()
	var want Request
	wantResult := want.Parse(captured)
	for range 3 {
		got, result := requests.Parse(captured)
		assert.Equal(t, wantResult, result)
		assert.Equal(t, want, *got)
	}
}

func checkResponses(t *testing.T, responses *Responses, captured, method []byte) {
	t.Helper()
	var want Response
	wantResult := want.Parse(captured, method)
	for range 3 {
		got, result := responses.Parse(captured, method)
		assert.Equal(t, wantResult, result)
		assert.Equal(t, want, *got)
	}
}

// Two calls in one place, whose heads may be the same or begin alike.
func FuzzRepeated(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), []byte("x"), "GET")
	f.Add([]byte("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), []byte("GET"), "HEAD")
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), []byte("hello"), "CONNECT")
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), []byte("\r\nhello"), "GET")
	f.Fuzz(func(t *testing.T, head, more []byte, method string) {
		var requests Requests
		var responses Responses
		whole := append(append([]byte{}, head...), more...)
		// All in one place: a head is found there by its bytes alone.
		for _, captured := range [][]byte{head, whole, head, more, whole} {
			var wantRequest Request
			wantResult := wantRequest.Parse(captured)
			request, result := requests.Parse(captured)
			assert.Equal(t, wantResult, result)
			assert.Equal(t, wantRequest, *request)
			for i := range requests.repeated.heads {
				requests.repeated.heads[i] = requests.repeated.heads[place(captured)]
			}
			var wantResponse Response
			wantResult = wantResponse.Parse(captured, []byte(method))
			response, result := responses.Parse(captured, []byte(method))
			assert.Equal(t, wantResult, result)
			assert.Equal(t, wantResponse, *response)
			for i := range responses.repeated.heads {
				responses.repeated.heads[i] = responses.repeated.heads[place(captured)]
			}
		}
	})
}
