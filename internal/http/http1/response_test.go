package http1

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recordedResponses are what servers sent.
var recordedResponses = []struct {
	name, requestMethod, head, body string
	want                            Response // but for Bytes
}{
	{
		"nginx", "GET", "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 17:48:29 GMT\r\n" +
			"Content-Type: text/html\r\nContent-Length: 6\r\nLast-Modified: Sun, 22 Nov 2026 17:48:27 GMT\r\n" +
			"Connection: keep-alive\r\nETag: \"6b032aeb-6\"\r\nAccept-Ranges: bytes\r\n\r\n", "hello\n",
		Response{
			Head:   Head{Minor: 1, Framing: FramingLength, ContentLength: 6},
			Status: 200,
		},
	},
	{
		"nginx to HEAD", "HEAD", "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 17:48:30 GMT\r\n" +
			"Content-Type: text/html\r\nContent-Length: 6\r\nLast-Modified: Sun, 22 Nov 2026 17:48:27 GMT\r\n" +
			"Connection: keep-alive\r\nETag: \"6b032aeb-6\"\r\nAccept-Ranges: bytes\r\n\r\n", "",
		Response{
			Head:   Head{Minor: 1, Framing: FramingNone, ContentLength: -1},
			Status: 200,
		},
	},
	{
		"nginx without content", "GET", "HTTP/1.1 204 No Content\r\nServer: nginx/1.22.1\r\n" +
			"Date: Sun, 22 Nov 2026 17:48:30 GMT\r\nConnection: keep-alive\r\n\r\n", "",
		Response{Head: plain(FramingNone), Status: 204},
	},
	{
		"nginx with gzip", "GET", "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 17:48:30 GMT\r\n" +
			"Content-Type: text/plain\r\nLast-Modified: Sun, 22 Nov 2026 17:48:27 GMT\r\nTransfer-Encoding: chunked\r\n" +
			"Connection: keep-alive\r\nETag: W/\"6b032aeb-bb8\"\r\nContent-Encoding: gzip\r\n\r\n", "32\r\n\x1f\x8b\x08",
		Response{
			Head:   Head{Minor: 1, Framing: FramingChunked, ContentLength: -1},
			Status: 200,
		},
	},
	{
		"nginx to HTTP/1.0", "GET", "HTTP/1.1 404 Not Found\r\nServer: nginx/1.22.1\r\n" +
			"Date: Sun, 22 Nov 2026 17:48:31 GMT\r\nContent-Type: text/html\r\nContent-Length: 153\r\n" +
			"Connection: close\r\n\r\n", "<html>\r\n<head>",
		Response{
			Head: Head{
				Minor: 1, Framing: FramingLength, ContentLength: 153,
			},
			Status: 404,
		},
	},
	{
		"Go", "GET", "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 17:48:34 GMT\r\nContent-Length: 6\r\n" +
			"Content-Type: text/plain; charset=utf-8\r\n\r\n", "hello\n",
		Response{
			Head: Head{
				Minor: 1, Framing: FramingLength, ContentLength: 6,
			},
			Status: 200,
		},
	},
	{
		"Go chunked", "GET", "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 17:48:34 GMT\r\n" +
			"Content-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n",
		"6\r\nhello\n\r\n1\r\nx\r\n0\r\n\r\n",
		Response{
			Head: Head{
				Minor: 1, Framing: FramingChunked, ContentLength: -1,
			},
			Status: 200,
		},
	},
	{
		"Go to HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nDate: Sun, 22 Nov 2026 17:48:34 GMT\r\n" +
			"Content-Type: text/plain; charset=utf-8\r\n\r\n", "hello\nx",
		Response{
			Head: Head{
				Framing: FramingClose, ContentLength: -1,
			},
			Status: 200,
		},
	},
	{
		"Go without content", "DELETE", "HTTP/1.1 204 No Content\r\nDate: Sun, 22 Nov 2026 17:48:34 GMT\r\n\r\n", "",
		Response{Head: plain(FramingNone), Status: 204},
	},
	{
		"Go to a bad request", "", "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n" +
			"Connection: close\r\n\r\n", "400 Bad Request",
		Response{
			Head: Head{
				Minor: 1, Framing: FramingClose, ContentLength: -1,
			},
			Status: 400,
		},
	},
	{
		"Go to an expectation", "POST", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\n",
		Response{Head: plain(FramingNone), Status: 100},
	},
	{
		"Python http.server", "GET", "HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.7\r\n" +
			"Date: Sun, 22 Nov 2026 17:48:31 GMT\r\nContent-type: text/html\r\nContent-Length: 6\r\n" +
			"Last-Modified: Sun, 22 Nov 2026 17:48:27 GMT\r\n\r\n", "hello\n",
		Response{
			Head:   Head{Framing: FramingLength, ContentLength: 6},
			Status: 200,
		},
	},
	{
		"Python http.server, not found", "GET", "HTTP/1.0 404 File not found\r\n" +
			"Server: SimpleHTTP/0.6 Python/3.11.7\r\nDate: Sun, 22 Nov 2026 17:48:32 GMT\r\nConnection: close\r\n" +
			"Content-Type: text/html;charset=utf-8\r\nContent-Length: 335\r\n\r\n", "<!DOCTYPE HTML>\n",
		Response{
			Head: Head{
				Framing: FramingLength, ContentLength: 335,
			},
			Status: 404,
		},
	},
	{
		"node", "GET", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 17:48:32 GMT\r\n" +
			"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\n", "{}",
		Response{
			Head:   Head{Minor: 1, Framing: FramingLength, ContentLength: 2},
			Status: 200,
		},
	},
	{
		"node chunked", "GET", "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 17:48:32 GMT\r\nConnection: keep-alive\r\n" +
			"Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
		Response{Head: plain(FramingChunked), Status: 200},
	},
	{
		"node to HTTP/1.0", "GET", "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 17:48:33 GMT\r\nConnection: close\r\n\r\n",
		"ab",
		Response{Head: Head{Minor: 1, Framing: FramingClose, ContentLength: -1}, Status: 200},
	},
	{
		"node WebSocket", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"\x81\x00",
		Response{Head: Head{Minor: 1, Framing: FramingNone, ContentLength: -1, Upgrade: true}, Status: 101},
	},
}

func TestRecordedResponses(t *testing.T) {
	for _, test := range recordedResponses {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			want.Bytes, want.GRPCStatus = len(test.head), -1
			var response Response
			assert.Equal(t, Complete, response.Parse([]byte(test.head+test.body), []byte(test.requestMethod)))
			assert.Equal(t, want, response)
		})
	}
}

func TestStatusLine(t *testing.T) {
	tests := []struct {
		name, captured string
		result         Result
		status, minor  int
	}{
		{"nothing", "", Partial, 0, 0},
		{"half a version", "HTT", Partial, 0, 0},
		{"no minor version", "HTTP/1.", Partial, 0, 0},
		{"a version", "HTTP/1.1", Partial, 0, 0},
		{"a version and its space", "HTTP/1.1 ", Partial, 0, 1},
		{"two digits", "HTTP/1.1 20", Partial, 0, 1},
		{"three digits", "HTTP/1.1 200", Partial, 0, 1},
		{"three digits and a space", "HTTP/1.1 200 ", Partial, 200, 1},
		{"three digits and half a line break", "HTTP/1.1 200\r", Partial, 200, 1},
		{"half a reason", "HTTP/1.1 200 O", Partial, 200, 1},
		{"half a line break", "HTTP/1.1 200 OK\r", Partial, 200, 1},
		{"a whole line", "HTTP/1.1 200 OK\r\n", Partial, 200, 1},
		{"no fields", "HTTP/1.1 200 OK\r\n\r\n", Complete, 200, 1},
		{"line feeds alone", "HTTP/1.0 200 OK\n\n", Complete, 200, 0},
		{"empty reason", "HTTP/1.1 200 \r\n\r\n", Complete, 200, 1},
		{"no reason", "HTTP/1.1 200\r\n\r\n", Complete, 200, 1},
		{"no reason, line feed alone", "HTTP/1.1 200\n\n", Complete, 200, 1},
		{"reason with spaces", "HTTP/1.1 404 Not\tFound \xe9\r\n\r\n", Complete, 404, 1},
		{"lowest", "HTTP/1.1 100 \r\n\r\n", Complete, 100, 1},
		{"highest", "HTTP/1.1 999 \r\n\r\n", Complete, 999, 1},
		{"another minor version", "HTTP/1.2 200 OK\r\n\r\n", Complete, 200, 2},

		{"too low", "HTTP/1.1 099 \r\n\r\n", Malformed, 0, 0},
		{"too low, cut off", "HTTP/1.1 0", Malformed, 0, 0},
		{"too high", "HTTP/1.1 1000 \r\n\r\n", Malformed, 0, 0},
		{"too short", "HTTP/1.1 20 OK\r\n\r\n", Malformed, 0, 0},
		{"sign", "HTTP/1.1 +20 OK\r\n\r\n", Malformed, 0, 0},
		{"no status", "HTTP/1.1\r\n\r\n", Malformed, 0, 0},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", Malformed, 0, 0},
		{"no space", "HTTP/1.1 200OK\r\n\r\n", Malformed, 0, 0},
		{"tab", "HTTP/1.1 200\tOK\r\n\r\n", Malformed, 0, 0},
		{"long minor version", "HTTP/1.10 200 OK\r\n\r\n", Malformed, 0, 0},
		{"no digit", "HTTP/1.x 200 OK\r\n\r\n", Malformed, 0, 0},
		{"HTTP/2", "HTTP/2 200\r\n\r\n", Malformed, 0, 0},
		{"Icecast", "ICY 200 OK\r\n\r\n", Malformed, 0, 0},
		{"a line break first", "\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed, 0, 0},
		{"carriage return in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", Malformed, 0, 0},
		{"NUL in the reason", "HTTP/1.1 200 O\x00", Malformed, 0, 0},
		{"a request", "GET / HTTP/1.1\r\n\r\n", Malformed, 0, 0},
		{"malformed field", "HTTP/1.1 204 OK\r\nConnection: close\r\nx\r\n\r\n", Malformed, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var response Response
			require.Equal(t, test.result, response.Parse([]byte(test.captured), nil))
			assert.Equal(t, test.status, response.Status)
			assert.Equal(t, test.minor, response.Minor)
			switch test.result {
			case Complete:
				assert.Equal(t, len(test.captured), response.Bytes)
			case Partial:
				assert.Zero(t, response.Bytes)
				assert.Equal(t, FramingUnknown, response.Framing)
			case Malformed:
				assert.Equal(t, Response{Head: Head{ContentLength: -1}, GRPCStatus: -1}, response)
			}
		})
	}
}

func TestResponseFraming(t *testing.T) {
	none := Head{Framing: FramingNone, ContentLength: -1}
	chunked := Head{Framing: FramingChunked, ContentLength: -1}
	untilClose := Head{Framing: FramingClose, ContentLength: -1}
	tunnel := Head{Framing: FramingNone, ContentLength: -1, Upgrade: true}
	length := func(bytes int64) Head { return Head{Framing: FramingLength, ContentLength: bytes} }
	tests := []struct {
		name, requestMethod, start, fields string
		want                               Head // but for Minor and Bytes
	}{
		{"length", "GET", "HTTP/1.1 200 OK", "Content-Length: 5\r\n", length(5)},
		{"length 0", "GET", "HTTP/1.1 200 OK", "Content-Length: 0\r\n", length(0)},
		{"same length twice", "", "HTTP/1.1 200 OK", "Content-Length: 5, 5\r\nContent-Length: 5\r\n", length(5)},
		{"chunked", "", "HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", chunked},
		{"chunked and length", "", "HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunked},
		{"neither", "GET", "HTTP/1.1 200 OK", "", untilClose},
		{"neither, with keep-alive", "GET", "HTTP/1.1 200 OK", "Connection: keep-alive\r\n", untilClose},
		{"chunked not last", "", "HTTP/1.1 200 OK", "Transfer-Encoding: chunked, gzip\r\nContent-Length: 5\r\n", untilClose},
		{"different lengths", "", "HTTP/1.1 200 OK", "Content-Length: 5\r\nContent-Length: 6\r\n", untilClose},
		{"different lengths joined", "", "HTTP/1.1 200 OK", "Content-Length: 5, 6\r\n", untilClose},
		{"sign", "", "HTTP/1.1 200 OK", "Content-Length: +5\r\n", untilClose},
		{"overflow", "", "HTTP/1.1 200 OK", "Content-Length: 9223372036854775808\r\n", untilClose},
		{"folded length", "", "HTTP/1.1 200 OK", "Content-Length: 5\r\n 6\r\n", untilClose},
		{"close", "", "HTTP/1.1 200 OK", "Content-Length: 5\r\nConnection: Close\r\n", length(5)},
		{"HTTP/1.0", "", "HTTP/1.0 200 OK", "Content-Length: 5\r\n", length(5)},
		{"HTTP/1.0 keep-alive", "", "HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: Keep-Alive\r\n", length(5)},
		{
			"Apache advertises HTTP/2", "GET", "HTTP/1.1 200 OK",
			"Upgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n", length(5),
		},
		{"reset content", "POST", "HTTP/1.1 205 Reset Content", "Content-Length: 0\r\n", length(0)},

		{"interim", "POST", "HTTP/1.1 103 Early Hints", "Link: </a>\r\nContent-Length: 5\r\n", none},
		{"interim of HTTP/1.0", "POST", "HTTP/1.0 100 Continue", "", none},
		{"no content", "", "HTTP/1.1 204 No Content", "Transfer-Encoding: chunked\r\n", none},
		{"no content, bad length", "", "HTTP/1.1 204 No Content", "Content-Length: x\r\n", none},
		{"not modified", "", "HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n", none},
		{"not modified, HTTP/1.0", "", "HTTP/1.0 304 Not Modified", "", none},
		{"to HEAD", "HEAD", "HTTP/1.1 200 OK", "Content-Length: 5\r\n", none},
		{"to HEAD, chunked", "HEAD", "HTTP/1.1 404 Not Found", "Transfer-Encoding: chunked\r\n", none},
		{"to head", "head", "HTTP/1.1 200 OK", "Content-Length: 5\r\n", length(5)},
		{"switched", "GET", "HTTP/1.1 101 Switching Protocols", "Content-Length: 5\r\n", tunnel},
		{"tunnel", "CONNECT", "HTTP/1.1 200 OK", "Content-Length: 5\r\n", tunnel},
		{"tunnel, chunked", "CONNECT", "HTTP/1.1 299 OK", "Transfer-Encoding: chunked\r\n", tunnel},
		{"tunnel of HTTP/1.0", "CONNECT", "HTTP/1.0 200 Connection established", "", tunnel},
		{"no tunnel", "CONNECT", "HTTP/1.1 502 Bad Gateway", "Content-Length: 5\r\n", length(5)},
		{"tunnel that nobody knows of", "", "HTTP/1.1 200 OK", "", untilClose},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			start := test.start + "\r\n" + test.fields
			requestMethod := []byte(test.requestMethod)
			var response Response
			require.Equal(t, Complete, response.Parse([]byte(start+"\r\nbody"), requestMethod))
			want := test.want
			want.Minor, want.Bytes = response.Minor, len(start)+len("\r\n")
			assert.Equal(t, want, response.Head)

			// Without the blank line, the fields may not be all; the status and the request's method are certain.
			require.Equal(t, Partial, response.Parse([]byte(start), requestMethod))
			want.Bytes, want.ContentLength = 0, -1
			if want.Framing != FramingNone {
				want.Framing = FramingUnknown
			}
			assert.Equal(t, want, response.Head)
		})
	}
}

func TestGRPCStatus(t *testing.T) {
	for fields, want := range map[string]int{
		"":                                     -1,
		"grpc-status: 0\r\n":                   0,
		"Grpc-Status:16\r\n":                   16,
		"grpc-status: 2147483647\r\n":          1<<31 - 1,
		"grpc-status: 2147483648\r\n":          -1,
		"grpc-status: -1\r\n":                  -1,
		"grpc-status: OK\r\n":                  -1,
		"grpc-status:\r\n":                     -1,
		"grpc-status: 5\r\ngrpc-status: 0\r\n": 5,
		"grpc-status-details-bin: 5\r\n":       -1,
	} {
		var response Response
		require.Equal(t, Complete, response.Parse([]byte("HTTP/1.1 200 OK\r\n"+fields+"\r\n"), nil))
		assert.Equal(t, want, response.GRPCStatus, fields)
		require.Equal(t, Partial, response.Parse([]byte("HTTP/1.1 200 OK\r\n"+fields), nil))
		assert.Equal(t, want, response.GRPCStatus, fields)
	}
}

func checkResponseCut(t *testing.T, captured, method []byte, cut int, whole Response, wholeResult Result) {
	t.Helper()
	var part Response
	result := part.Parse(captured[:cut], method)
	want := Partial
	if wholeResult == Complete && cut >= whole.Bytes {
		want = Complete
	}
	if result != want {
		t.Fatalf("%d of %d bytes: result %d, want %d: %q", cut, len(captured), result, want, captured[:cut])
	}
	assertHeadCertain(t, part.Head, whole.Head)
	if part.Status != 0 && part.Status != whole.Status {
		t.Fatalf("status %d of %d", part.Status, whole.Status)
	}
	if part.GRPCStatus >= 0 && part.GRPCStatus != whole.GRPCStatus {
		t.Fatalf("gRPC status %d of %d", part.GRPCStatus, whole.GRPCStatus)
	}
}

// choices makes up heads.
type choices struct{ *rand.Rand }

func (c *choices) pick(from ...string) string { return from[c.IntN(len(from))] }

// madeUp returns heads that begin with such lines, with random fields.
func madeUp(line func(*choices) string) []string {
	random := &choices{rand.New(rand.NewPCG(1, 2))}
	var heads []string
	for range 500 {
		end := random.pick("\r\n", "\n")
		var head strings.Builder
		head.WriteString(line(random))
		head.WriteString(end)
		for range random.IntN(8) {
			head.WriteString(random.pick(
				"Host: a", "host:b", "User-Agent: \t u v", "Content-Type: t/s; a=b", "CONTENT-TYPE:",
				"Content-Length: 5", "content-length:5, 5", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked",
				"Connection: close", "Connection: Keep-Alive, Upgrade", "Upgrade: websocket", "Expect: 100-continue",
				"traceparent: "+traceParent, "tracestate: a=b", "tracestate: c=d", "X-Request-Id: 7", "b3: 0", "X-B3-TraceId: a", "X-B3-SpanId: b",
				"grpc-status: 5", "X: y"+end+" folded",
			))
			head.WriteString(end)
		}
		head.WriteString(end)
		head.WriteString(random.pick("", "body", "\r\n"))
		heads = append(heads, head.String())
	}
	return heads
}

// TestResponsePrefixes holds parts of heads against the whole: those that were recorded, and made up ones.
func TestResponsePrefixes(t *testing.T) {
	var heads []string
	for _, test := range recordedResponses {
		heads = append(heads, test.head+test.body)
	}
	line := func(random *choices) string {
		return "HTTP/1." + random.pick("0", "1", "2") + " " +
			random.pick("100", "101", "200", "204", "304", "404", "999") + random.pick("", " ", " OK", " Not Found")
	}
	heads = append(heads, madeUp(line)...)
	for _, head := range heads {
		for _, requestMethod := range []string{"", "GET", "HEAD", "CONNECT"} {
			captured, method := []byte(head), []byte(requestMethod)
			var whole Response
			result := whole.Parse(captured, method)
			require.Equal(t, Complete, result, head)
			for cut := range len(captured) + 1 {
				checkResponseCut(t, captured, method, cut, whole, result)
			}
		}
	}
}

func TestResponseDoesNotAllocate(t *testing.T) {
	for _, test := range recordedResponses {
		captured, requestMethod := []byte(test.head+test.body), []byte(test.requestMethod)
		var response Response
		assert.Zero(t, testing.AllocsPerRun(100, func() { response.Parse(captured, requestMethod) }), test.name)
	}
}

func FuzzResponse(f *testing.F) {
	for _, test := range recordedResponses {
		f.Add([]byte(test.head+test.body), test.requestMethod, uint16(len(test.head)/2))
	}
	for _, fields := range []string{
		"Content-Length: 5, 5\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Type: a\r\n b\r\n", "X : a\r\n",
		"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "Connection: close, keep-alive\r\n",
		"grpc-status: 5\r\ngrpc-message: no\r\n",
	} {
		f.Add([]byte("HTTP/1.0 200\n"+fields+"\r\n"), "CONNECT", uint16(9))
	}
	f.Fuzz(func(t *testing.T, captured []byte, requestMethod string, cut uint16) {
		var response Response
		method := []byte(requestMethod)
		result := response.Parse(captured, method)
		if result != Malformed {
			checkResponseCut(t, captured, method, min(int(cut), len(captured)), response, result)
		}
		if (result == Complete) != (response.Bytes > 0) || response.Bytes > len(captured) {
			t.Fatalf("result %d with %d bytes of %d", result, response.Bytes, len(captured))
		}
		if result != Complete {
			return
		}
		head := captured[:response.Bytes]
		request := &http.Request{Method: requestMethod}
		reference, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), request)
		if err != nil {
			return
		}
		defer reference.Body.Close()
		if folded(head) {
			return
		}
		assert.Equal(t, reference.StatusCode, response.Status)
		assert.Equal(t, reference.ProtoMinor, response.Minor)
		switch {
		case response.Upgrade: // net/http leaves tunnels to its callers
			return
		case requestMethod == "HEAD": // it reports the length that the body would have
			return
		case response.Minor == 0 && bytes.Contains(bytes.ToLower(head), []byte("transfer-encoding")):
			return // it takes no notice of that in HTTP/1.0
		}
		assert.Equal(t, reference.ContentLength, referenceLength(response.Head))
	})
}

func BenchmarkResponse(b *testing.B) {
	for _, test := range recordedResponses {
		if test.name != "nginx" && test.name != "Go" {
			continue
		}
		b.Run(test.name, func(b *testing.B) {
			captured, requestMethod := []byte(test.head+test.body), []byte(test.requestMethod)
			var response Response
			b.SetBytes(int64(len(captured)))
			b.ReportAllocs()
			for b.Loop() {
				response.Parse(captured, requestMethod)
			}
		})
	}
}
