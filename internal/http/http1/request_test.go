package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// plain is the head of a message of HTTP/1.1 with that framing, and sized one with Content-Length.
func plain(framing Framing) Head { return Head{Minor: 1, Framing: framing, ContentLength: -1} }

func sized(contentLength int64) Head {
	return Head{Minor: 1, Framing: FramingLength, ContentLength: contentLength}
}

const traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// recordedRequests are what programs sent: recorded on a socket, but for the browsers and ApacheBench.
var recordedRequests = []struct {
	name, head, body string
	want             Request // but for Bytes
}{
	{
		"curl GET", "GET /index.html?q=1 HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: curl/7.88.1\r\n" +
			"Accept: */*\r\n\r\n", "",
		Request{
			Head: plain(FramingNone), Method: []byte("GET"), Target: []byte("/index.html?q=1"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("curl/7.88.1"),
		},
	},
	{
		"curl POST", "POST /form HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n" +
			"Content-Length: 7\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n", "a=1&b=2",
		Request{
			Head:        Head{Minor: 1, Framing: FramingLength, ContentLength: 7},
			ContentType: []byte("application/x-www-form-urlencoded"),
			Method:      []byte("POST"), Target: []byte("/form"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("curl/7.88.1"),
		},
	},
	{
		"curl --http2", "GET /h2c HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n" +
			"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n", "",
		Request{
			Head:   Head{Minor: 1, Framing: FramingNone, ContentLength: -1, Upgrade: true},
			Method: []byte("GET"), Target: []byte("/h2c"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("curl/7.88.1"),
		},
	},
	{
		"curl -T -", "PUT /up HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n" +
			"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n", "",
		Request{
			Head: plain(FramingChunked), Method: []byte("PUT"), Target: []byte("/up"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("curl/7.88.1"), ExpectContinue: true,
		},
	},
	{
		"curl to a proxy", "GET http://example.com/x HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/7.88.1\r\n" +
			"Accept: */*\r\nProxy-Connection: Keep-Alive\r\n\r\n", "",
		Request{
			Head: plain(FramingNone), Method: []byte("GET"), Target: []byte("http://example.com/x"),
			Host: []byte("example.com"), UserAgent: []byte("curl/7.88.1"),
		},
	},
	{
		"curl CONNECT", "CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\nUser-Agent: curl/7.88.1\r\n" +
			"Proxy-Connection: Keep-Alive\r\n\r\n", "",
		Request{
			Head: plain(FramingNone), Method: []byte("CONNECT"), Target: []byte("example.com:80"),
			Host: []byte("example.com:80"), UserAgent: []byte("curl/7.88.1"),
		},
	},
	{
		"Go GET", "GET /go HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Accept-Encoding: gzip\r\n\r\n", "",
		Request{
			Head: plain(FramingNone), Method: []byte("GET"), Target: []byte("/go"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("Go-http-client/1.1"),
		},
	},
	{
		"Go chunked", "POST /gop HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
		"2\r\n{}\r\n0\r\n\r\n",
		Request{
			Head: Head{Minor: 1, Framing: FramingChunked, ContentLength: -1}, ContentType: []byte("application/json"),
			Method: []byte("POST"), Target: []byte("/gop"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("Go-http-client/1.1"),
		},
	},
	{
		"Go with trace context", "PUT /e HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Content-Length: 4\r\nExpect: 100-continue\r\nTraceparent: " + traceParent + "\r\n" +
			"Accept-Encoding: gzip\r\n\r\n", "",
		Request{
			Head: sized(4), Method: []byte("PUT"), Target: []byte("/e"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("Go-http-client/1.1"),
			TraceParent: []byte(traceParent), ExpectContinue: true,
		},
	},
	{
		"Python http.client", "GET /a HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nAccept-Encoding: identity\r\n\r\n", "",
		Request{
			Head: plain(FramingNone), Method: []byte("GET"), Target: []byte("/a"), Host: []byte("127.0.0.1:18081"),
		},
	},
	{
		"Python http.client chunked", "POST /a HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nAccept-Encoding: identity\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n0\r\n\r\n",
		Request{
			Head: plain(FramingChunked), Method: []byte("POST"), Target: []byte("/a"), Host: []byte("127.0.0.1:18081"),
		},
	},
	{
		"Python urllib", "GET /u HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: 127.0.0.1:18081\r\n" +
			"User-Agent: Python-urllib/3.11\r\nConnection: close\r\n\r\n", "",
		Request{
			Head:   Head{Minor: 1, Framing: FramingNone, ContentLength: -1},
			Method: []byte("GET"), Target: []byte("/u"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("Python-urllib/3.11"),
		},
	},
	{
		"wrk", "GET /w HTTP/1.1\r\nHost: 127.0.0.1:18081\r\n\r\n", "",
		Request{
			Head: plain(FramingNone), Method: []byte("GET"), Target: []byte("/w"), Host: []byte("127.0.0.1:18081"),
		},
	},
	{
		"wget", "GET /wget HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: Wget/1.21.3\r\nAccept: */*\r\n" +
			"Accept-Encoding: identity\r\nConnection: Keep-Alive\r\n\r\n", "",
		Request{
			Head: plain(FramingNone), Method: []byte("GET"), Target: []byte("/wget"),
			Host: []byte("127.0.0.1:18081"), UserAgent: []byte("Wget/1.21.3"),
		},
	},
	{
		"node fetch", "POST /f HTTP/1.1\r\nhost: 127.0.0.1:18081\r\nconnection: keep-alive\r\n" +
			"content-type: application/json\r\naccept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\n" +
			"user-agent: node\r\naccept-encoding: gzip, deflate\r\ncontent-length: 2\r\n\r\n", "{}",
		Request{
			Head: Head{Minor: 1, Framing: FramingLength, ContentLength: 2}, ContentType: []byte("application/json"),
			Method: []byte("POST"), Target: []byte("/f"), Host: []byte("127.0.0.1:18081"), UserAgent: []byte("node"),
		},
	},
	{
		"ApacheBench", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: 127.0.0.1\r\n" +
			"User-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\n", "",
		Request{
			Head: Head{Framing: FramingNone, ContentLength: -1}, Method: []byte("GET"), Target: []byte("/"),
			Host: []byte("127.0.0.1"), UserAgent: []byte("ApacheBench/2.3"),
		},
	},
	{"Chrome", chromeHead, "", Request{
		Head: plain(FramingNone), Method: []byte("GET"), Target: []byte("/search?q=h%C3%A9&lang=en"),
		Host: []byte("shop.example:8080"), UserAgent: []byte(chromeAgent),
	}},
	{
		"Chrome WebSocket", "GET /live HTTP/1.1\r\nHost: shop.example:8080\r\nConnection: Upgrade\r\n" +
			"Pragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: " + chromeAgent + "\r\nUpgrade: websocket\r\n" +
			"Origin: http://shop.example:8080\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate\r\n" +
			"Accept-Language: en-US,en;q=0.9\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
			"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n", "",
		Request{
			Head:   Head{Minor: 1, Framing: FramingNone, ContentLength: -1, Upgrade: true},
			Method: []byte("GET"), Target: []byte("/live"), Host: []byte("shop.example:8080"),
			UserAgent: []byte(chromeAgent),
		},
	},
	{
		"Firefox", "POST /cart HTTP/1.1\r\nHost: shop.example\r\n" +
			"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
			"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
			"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n" +
			"Content-Type: multipart/form-data; boundary=---------------------------9051914041544843365972754266\r\n" +
			"Content-Length: 554\r\nOrigin: http://shop.example\r\nConnection: keep-alive\r\nDNT: 1\r\n" +
			"Upgrade-Insecure-Requests: 1\r\nPriority: u=0, i\r\n\r\n", "-----------------------------9051",
		Request{
			Head:        Head{Minor: 1, Framing: FramingLength, ContentLength: 554},
			ContentType: []byte("multipart/form-data; boundary=---------------------------9051914041544843365972754266"),
			Method:      []byte("POST"), Target: []byte("/cart"), Host: []byte("shop.example"),
			UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
		},
	},
}

const (
	chromeAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
	chromeHead  = "GET /search?q=h%C3%A9&lang=en HTTP/1.1\r\nHost: shop.example:8080\r\nConnection: keep-alive\r\n" +
		"sec-ch-ua: \"Not/A)Brand\";v=\"8\", \"Chromium\";v=\"126\", \"Google Chrome\";v=\"126\"\r\n" +
		"sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n" +
		"User-Agent: " + chromeAgent + "\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n" +
		"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: session=0123456789\r\n\r\n"
)

func TestRecordedRequests(t *testing.T) {
	for _, test := range recordedRequests {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			want.Bytes = len(test.head)
			var request Request
			assert.Equal(t, Complete, request.Parse([]byte(test.head+test.body)))
			assert.Equal(t, want, request)
		})
	}
}

// TestRequestLine is about what there is up to the first field.
func TestRequestLine(t *testing.T) {
	type line struct {
		method, target string
		minor          int
	}
	tests := []struct {
		name, captured string
		result         Result
		want           line
	}{
		{"nothing", "", Partial, line{}},
		{"one byte", "G", Partial, line{}},
		{"a method", "GET", Partial, line{}},
		{"a method and its space", "GET ", Partial, line{method: "GET"}},
		{"a target that is cut off", "GET /ind", Partial, line{method: "GET"}},
		{"a target and its space", "GET /ind ", Partial, line{"GET", "/ind", 0}},
		{"half a version", "GET / HTT", Partial, line{"GET", "/", 0}},
		{"a version", "GET / HTTP/1.1", Partial, line{"GET", "/", 0}},
		{"half a line break", "GET / HTTP/1.1\r", Partial, line{"GET", "/", 0}},
		{"a whole line", "GET / HTTP/1.1\r\n", Partial, line{"GET", "/", 1}},
		{"half a blank line", "GET / HTTP/1.1\r\n\r", Partial, line{"GET", "/", 1}},
		{"no fields", "GET / HTTP/1.1\r\n\r\n", Complete, line{"GET", "/", 1}},
		{"line feeds alone", "GET / HTTP/1.0\n\n", Complete, line{"GET", "/", 0}},
		{"another minor version", "GET / HTTP/1.9\r\n\r\n", Complete, line{"GET", "/", 9}},
		{"WebDAV", "VERSION-CONTROL /x HTTP/1.1\r\n\r\n", Complete, line{"VERSION-CONTROL", "/x", 1}},
		{"UPnP", "M-SEARCH * HTTP/1.1\r\n\r\n", Complete, line{"M-SEARCH", "*", 1}},
		{"own method", "MY_2ND /x HTTP/1.1\r\n\r\n", Complete, line{"MY_2ND", "/x", 1}},
		{"longest method", strings.Repeat("M", 24) + " / HTTP/1.1\r\n\r\n", Complete, line{strings.Repeat("M", 24), "/", 1}},
		{"longest method, cut off", strings.Repeat("M", 24), Partial, line{}},
		{"absolute form", "GET http://a/b HTTP/1.1\r\n\r\n", Complete, line{"GET", "http://a/b", 1}},
		{"UTF-8 in the target", "GET /é HTTP/1.1\r\n\r\n", Complete, line{"GET", "/é", 1}},
		{"a line break first", "\r\nGET / HTTP/1.1\r\n\r\n", Complete, line{"GET", "/", 1}},
		{"two line breaks first", "\r\n\nGET / HTTP/1.1\r\n\r\n", Complete, line{"GET", "/", 1}},
		{"a line break alone", "\r\n", Partial, line{}},
		{"half of a second line break", "\r\n\r", Partial, line{}},

		{"three line breaks first", "\r\n\r\n\r", Malformed, line{}},
		{"carriage return first", "\rGET / HTTP/1.1\r\n\r\n", Malformed, line{}},
		{"space first", " GET / HTTP/1.1\r\n\r\n", Malformed, line{}},
		{"lower case", "get / HTTP/1.1\r\n\r\n", Malformed, line{}},
		{"no method character", "GE/T / HTTP/1.1\r\n\r\n", Malformed, line{}},
		{"method too long", strings.Repeat("M", 25), Malformed, line{}},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Malformed, line{}},
		{"no target", "GET  HTTP/1.1\r\n\r\n", Malformed, line{}},
		{"HTTP/0.9", "GET /\r\n", Malformed, line{}},
		{"space in the target", "GET /a b HTTP/1.1\r\n\r\n", Malformed, line{}},
		{"tab in the target", "GET /a\tb HTTP/1.1\r\n\r\n", Malformed, line{}},
		{"NUL in the target", "GET /a\x00b", Malformed, line{}},
		{"DEL in the target", "GET /a\x7fb", Malformed, line{}},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Malformed, line{}},
		{"RTSP", "OPTIONS * RTSP/1.0\r\n", Malformed, line{}},
		{"version in lower case", "GET / http/1.1\r\n\r\n", Malformed, line{}},
		{"no minor version", "GET / HTTP/1.\r\n\r\n", Malformed, line{}},
		{"long minor version", "GET / HTTP/1.10\r\n\r\n", Malformed, line{}},
		{"space after the version", "GET / HTTP/1.1 \r\n\r\n", Malformed, line{}},
		{"two carriage returns", "GET / HTTP/1.1\r\r\n\r\n", Malformed, line{}},
		{"a response", "HTTP/1.1 200 OK\r\n\r\n", Malformed, line{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var request Request
			require.Equal(t, test.result, request.Parse([]byte(test.captured)))
			assert.Equal(t, test.want, line{string(request.Method), string(request.Target), request.Minor})
			if test.result == Complete {
				assert.Equal(t, len(test.captured), request.Bytes)
			} else {
				assert.Zero(t, request.Bytes)
				assert.Equal(t, FramingUnknown, request.Framing)
			}
		})
	}
}

// TestRequestFields is about what requests and responses do not have in common, and about lines of fields.
func TestRequestFields(t *testing.T) {
	many := func(lines int) string { return strings.Repeat("a: b\r\n", lines) }
	type fields struct {
		host, userAgent, traceParent, traceState, requestID, contentType string
		expectContinue, upgrade                                          bool
		traceBin, b3                                                     string
	}
	tests := []struct {
		name, fields string // fields with the blank line
		result       Result
		want         fields
	}{
		{
			"all", "Host: h\r\nUser-Agent: u\r\ntraceparent: p\r\ntracestate: s\r\nX-Request-Id: i\r\n" +
				"Expect: 100-Continue\r\nContent-Type: c\r\nConnection: upgrade\r\nUpgrade: x\r\n" +
				"grpc-trace-bin: t\r\nb3: b\r\n\r\n", Complete,
			fields{"h", "u", "p", "s", "i", "c", true, true, "t", "b"},
		},
		{
			"any case", "hOST: h\r\nUSER-AGENT: u\r\nTraceParent: p\r\nTRACESTATE: s\r\nx-request-ID: i\r\n" +
				"EXPECT: 100-CONTINUE\r\nCONTENT-type: c\r\nCONNECTION: UPGRADE\r\nUPGRADE: X\r\n" +
				"Grpc-Trace-Bin: t\r\nB3: b\r\n\r\n", Complete,
			fields{"h", "u", "p", "s", "i", "c", true, true, "t", "b"},
		},
		{"no space", "Host:h\r\n\r\n", Complete, fields{host: "h"}},
		{"much space", "Host: \t h h\t \r\n\r\n", Complete, fields{host: "h h"}},
		{"line feeds alone", "Host: h\nUser-Agent: u\n\n", Complete, fields{host: "h", userAgent: "u"}},
		{"empty value", "Host:\r\nUser-Agent: \r\n\r\n", Complete, fields{}},
		{"colons in the value", "Host: [::1]:80\r\n\r\n", Complete, fields{host: "[::1]:80"}},
		{"bytes beyond ASCII", "User-Agent: \xe9\r\nX-\xe9: 1\r\n\r\n", Complete, fields{userAgent: "\xe9"}},
		{
			"the first of several", "Host: a\r\nHost: b\r\ntraceparent: c\r\ntraceparent: d\r\n\r\n", Complete,
			fields{host: "a", traceParent: "c"},
		},
		{"the first, though empty", "Host:\r\nHost: b\r\n\r\n", Complete, fields{}},
		{"longer and shorter names", "Hosts: a\r\nHos: a\r\nXHost: a\r\n\r\n", Complete, fields{}},
		{"carriage return for a hyphen", "Content\rType: c\r\n\r\n", Malformed, fields{}},
		{"NUL for a hyphen", "User\x00Agent: u\r\n\r\n", Malformed, fields{}},
		{"other expectation", "Expect: 200-ok\r\n\r\n", Complete, fields{}},
		{"folded", "Host: a\r\n b\r\n\tc: d\r\nUser-Agent: u\r\n\r\n", Complete, fields{host: "a", userAgent: "u"}},
		{"folded, blank", "Host: a\r\n \r\nUser-Agent: u\r\n\r\n", Complete, fields{host: "a", userAgent: "u"}},
		{"folded line that looks like a field", "X: a\r\n Host: b\r\n\r\n", Complete, fields{}},
		{"upgrade without a protocol", "Connection: upgrade\r\n\r\n", Complete, fields{}},
		{"upgrade to an empty protocol", "Connection: upgrade\r\nUpgrade: \r\n\r\n", Complete, fields{}},
		{"protocol without upgrade", "Connection: keep-alive\r\nUpgrade: h2c\r\n\r\n", Complete, fields{}},
		{
			"upgrade in several fields", "Upgrade: x\r\nConnection: a\r\nConnection: b ,\tUpgrade\r\n\r\n", Complete,
			fields{upgrade: true},
		},

		{"cut off in a name", "Host: h\r\nUser-", Partial, fields{host: "h"}},
		{"cut off in a value", "Host: h\r\nUser-Agent: u", Partial, fields{host: "h"}},
		{"cut off in a line break", "Host: h\r\nUser-Agent: u\r", Partial, fields{host: "h"}},
		{"cut off after a line", "Host: h\r\nUser-Agent: u\r\n", Partial, fields{host: "h", userAgent: "u"}},
		{"cut off in the blank line", "Host: h\r\n\r", Partial, fields{host: "h"}},
		{"cut off, upgrade seen", "Upgrade: x\r\nConnection: upgrade\r\nA", Partial, fields{upgrade: true}},

		{"as many lines as are looked at", many(255) + "Host: h\r\n\r\n", Complete, fields{host: "h"}},
		{"one more line", many(255) + "Host: h\r\nUser-Agent: u\r\n\r\n", Partial, fields{host: "h"}},
		{"folded lines count", "a: b\r\n" + strings.Repeat(" c\r\n", 255) + "Host: h\r\n\r\n", Partial, fields{}},

		{"no colon", "Host\r\n\r\n", Malformed, fields{}},
		{"no name", ": h\r\n\r\n", Malformed, fields{}},
		{"space before the colon", "Host : h\r\n\r\n", Malformed, fields{}},
		{"tab before the colon", "Host\t: h\r\n\r\n", Malformed, fields{}},
		{"space in a name", "Ho st: h\r\n\r\n", Malformed, fields{}},
		{"NUL in a name", "Ho\x00st: h\r\n\r\n", Malformed, fields{}},
		{"folded without a field", " Host: h\r\n\r\n", Malformed, fields{}},
		{"two carriage returns", "Host: h\r\n\r\r\n", Malformed, fields{}},
		{"malformed late", "Host: h\r\nUser-Agent: u\r\nx\r\n", Malformed, fields{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var request Request
			captured := "GET / HTTP/1.1\r\n" + test.fields
			require.Equal(t, test.result, request.Parse([]byte(captured)))
			assert.Equal(t, test.want, fields{
				string(request.Host), string(request.UserAgent), string(request.TraceParent), string(request.TraceState),
				string(request.RequestID), string(request.ContentType), request.ExpectContinue, request.Upgrade,
				string(request.TraceBin), request.B3.Text(),
			})
			if test.result == Malformed {
				assert.Equal(t, Request{Head: Head{ContentLength: -1}}, request)
			}
		})
	}
}

func TestRequestFraming(t *testing.T) {
	tests := []struct {
		name, fields string
		minor        int
		result       Result
		framing      Framing
		length       int64
	}{
		{"neither", "", 1, Complete, FramingNone, -1},
		{"length", "Content-Length: 5\r\n", 1, Complete, FramingLength, 5},
		{"length 0", "Content-Length: 0\r\n", 1, Complete, FramingLength, 0},
		{"leading zeros", "Content-Length: 0000000000000000000000005\r\n", 1, Complete, FramingLength, 5},
		{"longest", "Content-Length: 9223372036854775807\r\n", 1, Complete, FramingLength, 1<<63 - 1},
		{"same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n", 1, Complete, FramingLength, 5},
		{"same length joined", "Content-Length: 5, 5 ,5\r\n", 1, Complete, FramingLength, 5},
		{"chunked", "Transfer-Encoding: chunked\r\n", 1, Complete, FramingChunked, -1},
		{"chunked in another case", "transfer-encoding:CHUNKED\r\n", 1, Complete, FramingChunked, -1},
		{"chunked last", "Transfer-Encoding: gzip, chunked\r\n", 1, Complete, FramingChunked, -1},
		{
			"chunked last of several", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked,\r\n",
			1, Complete, FramingChunked, -1,
		},
		{
			"chunked and length", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
			1, Complete, FramingChunked, -1,
		},
		{
			"chunked and bad length", "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
			1, Complete, FramingChunked, -1,
		},
		{"close", "Connection: close\r\n", 1, Complete, FramingNone, -1},
		{"close in a list", "Connection: keep-alive, Close\r\n", 1, Complete, FramingNone, -1},
		{"close in another field", "Connection: close\r\nConnection: keep-alive\r\n", 1, Complete, FramingNone, -1},
		{"almost close", "Connection: closed\r\n", 1, Complete, FramingNone, -1},
		{"HTTP/1.0", "", 0, Complete, FramingNone, -1},
		{"HTTP/1.0 keep-alive", "Connection: keep-alive\r\n", 0, Complete, FramingNone, -1},
		{
			"HTTP/1.0 chunked", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
			0, Complete, FramingChunked, -1,
		},

		{"different lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", 1, Malformed, 0, -1},
		{"different lengths joined", "Content-Length: 5, 6\r\n", 1, Malformed, 0, -1},
		{"length after a bad one", "Content-Length: x\r\nContent-Length: 5\r\n", 1, Malformed, 0, -1},
		{"empty length", "Content-Length:\r\n", 1, Malformed, 0, -1},
		{"length and nothing", "Content-Length: 5,\r\n", 1, Malformed, 0, -1},
		{"plus", "Content-Length: +5\r\n", 1, Malformed, 0, -1},
		{"minus", "Content-Length: -5\r\n", 1, Malformed, 0, -1},
		{"hexadecimal", "Content-Length: 0x5\r\n", 1, Malformed, 0, -1},
		{"space in a length", "Content-Length: 5 6\r\n", 1, Malformed, 0, -1},
		{"overflow", "Content-Length: 9223372036854775808\r\n", 1, Malformed, 0, -1},
		{"large overflow", "Content-Length: 18446744073709551621\r\n", 1, Malformed, 0, -1},
		{"folded length", "Content-Length: 5\r\n 6\r\n", 1, Malformed, 0, -1},
		{"folded coding", "Transfer-Encoding: chunked,\r\n gzip\r\n", 1, Malformed, 0, -1},
		{"chunked not last", "Transfer-Encoding: chunked, gzip\r\n", 1, Malformed, 0, -1},
		{"no chunked", "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", 1, Malformed, 0, -1},
		{"almost chunked", "Transfer-Encoding: xchunked\r\n", 1, Malformed, 0, -1},
		{"no coding", "Transfer-Encoding:\r\n", 1, Malformed, 0, -1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			start := "POST / HTTP/1." + string(rune('0'+test.minor)) + "\r\n" + test.fields
			var request Request
			require.Equal(t, test.result, request.Parse([]byte(start+"\r\nbody")))
			assert.Equal(t, test.framing, request.Framing)
			assert.Equal(t, test.length, request.ContentLength)

			// Without the blank line, whatever the fields say may not be all.
			require.Equal(t, Partial, request.Parse([]byte(start)))
			assert.Equal(t, FramingUnknown, request.Framing)
			assert.EqualValues(t, -1, request.ContentLength)
		})
	}
}

func TestParseResets(t *testing.T) {
	var request Request
	require.Equal(t, Complete, request.Parse([]byte("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"+
		"Expect: 100-continue\r\n\r\n")))
	require.Equal(t, Partial, request.Parse(nil))
	assert.Equal(t, Request{Head: Head{ContentLength: -1}}, request)

	var response Response
	require.Equal(t, Complete, response.Parse([]byte("HTTP/1.1 200 OK\r\nContent-Type: t\r\n"+
		"Content-Length: 5\r\n\r\n"), nil))
	require.Equal(t, Partial, response.Parse(nil, nil))
	assert.Equal(t, Response{Head: Head{ContentLength: -1}, GRPCStatus: -1}, response)
}

// assertHeadCertain checks that what is known of a part of the head is so of the whole.
func assertHeadCertain(t *testing.T, part, whole Head) {
	t.Helper()
	certain := (part.Minor == 0 || part.Minor == whole.Minor) &&
		(part.Bytes == 0 || part.Bytes == whole.Bytes) &&
		(part.Framing == FramingUnknown || part.Framing == whole.Framing) &&
		(part.ContentLength == -1 || part.ContentLength == whole.ContentLength) &&
		(!part.Upgrade || whole.Upgrade)
	if !certain {
		t.Fatalf("%+v is not all in %+v", part, whole)
	}
}

func valueCertain(part, whole []byte) bool {
	return part == nil || whole != nil && bytes.Equal(part, whole)
}

func assertRequestCertain(t *testing.T, part, whole Request) {
	t.Helper()
	assertHeadCertain(t, part.Head, whole.Head)
	certain := valueCertain(part.Method, whole.Method) && valueCertain(part.Target, whole.Target) &&
		valueCertain(part.Host, whole.Host) && valueCertain(part.UserAgent, whole.UserAgent) &&
		valueCertain(part.TraceParent, whole.TraceParent) && valueCertain(part.TraceState, whole.TraceState) &&
		valueCertain(part.RequestID, whole.RequestID) && valueCertain(part.ContentType, whole.ContentType) &&
		valueCertain(part.TraceBin, whole.TraceBin) && valueCertain(part.B3.Single, whole.B3.Single) &&
		valueCertain(part.B3.TraceID, whole.B3.TraceID) && valueCertain(part.B3.SpanID, whole.B3.SpanID) &&
		valueCertain(part.B3.ParentSpanID, whole.B3.ParentSpanID) &&
		valueCertain(part.B3.Sampled, whole.B3.Sampled) && valueCertain(part.B3.Debug, whole.B3.Debug) &&
		(!part.ExpectContinue || whole.ExpectContinue)
	if !certain {
		t.Fatalf("%+v is not all in %+v", part, whole)
	}
}

// checkRequestCut checks a part of a request against the whole.
func checkRequestCut(t *testing.T, captured []byte, cut int, whole Request, wholeResult Result) {
	t.Helper()
	var part Request
	result := part.Parse(captured[:cut])
	want := Partial
	if wholeResult == Complete && cut >= whole.Bytes {
		want = Complete
	}
	if result != want {
		t.Fatalf("%d of %d bytes: result %d, want %d: %q", cut, len(captured), result, want, captured[:cut])
	}
	assertRequestCertain(t, part, whole)
}

// TestRequestPrefixes holds parts of heads against the whole: those that were recorded, and made up ones.
func TestRequestPrefixes(t *testing.T) {
	var heads []string
	for _, test := range recordedRequests {
		heads = append(heads, test.head+test.body)
	}
	line := func(random *choices) string {
		return random.pick("", "", "\r\n", "\n\r\n") + random.pick("GET", "POST", "CONNECT", "PROPFIND", "A_B-1") + " " +
			random.pick("/", "*", "/a?b=c", "http://h/", "h:80") + " HTTP/1." + random.pick("0", "1", "2")
	}
	heads = append(heads, madeUp(line)...)
	for _, head := range heads {
		captured := []byte(head)
		var whole Request
		result := whole.Parse(captured)
		if result == Malformed {
			continue // conflicting lengths, which show late
		}
		for cut := range len(captured) + 1 {
			checkRequestCut(t, captured, cut, whole, result)
		}
	}
}

func TestRequestDoesNotAllocate(t *testing.T) {
	for _, test := range recordedRequests {
		captured := []byte(test.head + test.body)
		var request Request
		assert.Zero(t, testing.AllocsPerRun(100, func() { request.Parse(captured) }), test.name)
	}
}

// folded says whether a field of the head goes on in a further line: net/http joins what this package skips.
func folded(head []byte) bool {
	return bytes.Contains(head, []byte("\n ")) || bytes.Contains(head, []byte("\n\t"))
}

func FuzzRequest(f *testing.F) {
	for _, test := range recordedRequests {
		f.Add([]byte(test.head+test.body), uint16(len(test.head)/2))
	}
	for _, fields := range []string{
		"Content-Length: 5, 5\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n", "Host: a\r\n b\r\n", "Host : a\r\n",
		"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "Connection: close, keep-alive\r\n",
		"X-B3-TraceId: a\r\nx-b3-spanid: b\r\nx-b3-parentspanid: c\r\nx-b3-sampled: 1\r\nx-b3-flags: 1\r\nb3: 0\r\n",
	} {
		f.Add([]byte("\r\nPOST /a HTTP/1.0\r\n"+fields+"\r\n"), uint16(9))
	}
	f.Fuzz(func(t *testing.T, captured []byte, cut uint16) {
		var request Request
		result := request.Parse(captured)
		if result != Malformed {
			checkRequestCut(t, captured, min(int(cut), len(captured)), request, result)
		}
		if (result == Complete) != (request.Bytes > 0) || request.Bytes > len(captured) {
			t.Fatalf("result %d with %d bytes of %d", result, request.Bytes, len(captured))
		}
		if result != Complete {
			return
		}
		head := captured[:request.Bytes]
		reference, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil || folded(head) {
			return
		}
		assert.Equal(t, reference.Method, string(request.Method))
		assert.Equal(t, reference.RequestURI, string(request.Target))
		assert.Equal(t, reference.ProtoMinor, request.Minor)
		if reference.URL.Host == "" { // else that is the host
			assert.Equal(t, reference.Host, string(request.Host))
		}
		assert.Equal(t, reference.UserAgent(), string(request.UserAgent))
		assert.Equal(t, reference.Header.Get("Traceparent"), string(request.TraceParent))
		assert.Equal(t, reference.Header.Get("Tracestate"), string(request.TraceState))
		assert.Equal(t, reference.Header.Get("X-Request-Id"), string(request.RequestID))
		assert.Equal(t, reference.Header.Get("Grpc-Trace-Bin"), string(request.TraceBin))
		assert.Equal(t, reference.Header.Get("B3"), string(request.B3.Single))
		assert.Equal(t, reference.Header.Get("X-B3-Traceid"), string(request.B3.TraceID))
		assert.Equal(t, reference.Header.Get("X-B3-Spanid"), string(request.B3.SpanID))
		assert.Equal(t, reference.Header.Get("X-B3-Parentspanid"), string(request.B3.ParentSpanID))
		assert.Equal(t, reference.Header.Get("X-B3-Sampled"), string(request.B3.Sampled))
		assert.Equal(t, reference.Header.Get("X-B3-Flags"), string(request.B3.Debug))
		assert.Equal(t, reference.Header.Get("Content-Type"), string(request.ContentType))
		if request.Minor == 0 && request.Framing == FramingChunked {
			return // net/http takes no notice of Transfer-Encoding in HTTP/1.0
		}
		assert.Equal(t, reference.ContentLength, referenceLength(request.Head))
	})
}

// referenceLength is the length of a body as net/http has it.
func referenceLength(head Head) int64 {
	switch head.Framing {
	case FramingNone:
		return 0
	case FramingLength:
		return head.ContentLength
	}
	return -1
}

func BenchmarkRequest(b *testing.B) {
	for _, test := range recordedRequests {
		if test.name != "wrk" && test.name != "curl POST" && test.name != "Chrome" {
			continue
		}
		b.Run(test.name, func(b *testing.B) {
			captured := []byte(test.head + test.body)
			var request Request
			b.SetBytes(int64(len(captured)))
			b.ReportAllocs()
			for b.Loop() {
				request.Parse(captured)
			}
		})
	}
}
