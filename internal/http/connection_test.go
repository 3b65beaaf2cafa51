//go:build linux

package http

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// step is a call of the client or the server, or the end of the connection, as both ends see it.
type step struct {
	client bool   // the client sends; otherwise it receives
	text   string // the bytes of the call
	length int    // if it has more than text: all of them
	end    bool
	error  int32

	pieces   int   // so many bytes come first, one by one
	again    []int // places in the call at which the kernel tells of it again, when sent
	vectored bool  // the last bytes are in memory that the kernel side does not look at
}

func request(text string) step  { return step{client: true, text: text} }
func response(text string) step { return step{text: text} }
func closing() step             { return step{end: true} }
func failing(number int32) step { return step{end: true, error: number} }

func (s step) sized(length int) step    { s.length = length; return s }
func (s step) byteFirst() step          { s.pieces = 1; return s }
func (s step) inPieces(count int) step  { s.pieces = count; return s }
func (s step) toldAgain(at ...int) step { s.again = at; return s }
func (s step) inVectors() step          { s.vectored = true; return s }

// told is a message as the pairing gets it.
type told struct {
	message
	head *messageHead
	data []byte
}

// wire makes of calls what bpf/http.bpf.c makes of them, for one end of a connection.
type wire struct {
	role      Role
	cookie    uint64
	headBytes int
	nowNs     uint64
	offsets   [2]uint32
	messages  []told
	// noShortTails leaves out the bytes of calls that are shorter than a tail.
	noShortTails bool

	recognized  bool // the kernel side remembers the socket, and has seen a head
	captureLeft [2]int
	prefix      [2]string
	prefixEnd   [2]uint32
	// See bpf/include/http/pipelining.h.
	asking     bpfMessageDirection
	waiting    bool
	earlyCalls int
}

// noteHead is note_head of bpf/include/http/pipelining.h, but for what it knows of pipelining: the scripts are of losses
// that come with it.
func (w *wire) noteHead(direction bpfMessageDirection, text string) {
	if !strings.HasPrefix(text, "HTTP") {
		w.asking, w.waiting, w.earlyCalls = direction, true, 0
	} else if w.waiting && len(text) > 9 && text[9] != '1' {
		w.waiting, w.earlyCalls = false, 64
	}
}

// stepNs is the time between two calls.
const stepNs = 1000

// The two initial sequence numbers of every connection are made of its cookie.
func (w *wire) describe() *messageHead {
	clientSequence, serverSequence := uint32(w.cookie)*7, uint32(w.cookie)*7+3
	head := &messageHead{
		Family: unix.AF_INET, LocalAddress: [16]uint8{127, 0, 0, 1}, PeerAddress: [16]uint8{127, 0, 0, 2},
		LocalPort: 80, PeerPort: 40000, LocalSequence: serverSequence, RemoteSequence: clientSequence, Pid: 1,
	}
	if w.role == RoleClient {
		head.LocalAddress, head.PeerAddress = head.PeerAddress, head.LocalAddress
		head.LocalPort, head.PeerPort = head.PeerPort, head.LocalPort
		head.LocalSequence, head.RemoteSequence = head.RemoteSequence, head.LocalSequence
	}
	return head
}

func (w *wire) play(steps ...step) *wire {
	for _, s := range steps {
		w.nowNs += stepNs
		if s.end {
			if w.recognized {
				w.messages = append(w.messages, told{message: message{
					TimeNs: w.nowNs, Cookie: w.cookie, Kind: uint8(bpfMessageKindMESSAGE_END), Error: s.error,
					Offset: w.offsets[bpfMessageDirectionMESSAGE_SENT], Length: w.offsets[bpfMessageDirectionMESSAGE_RECEIVED],
				}})
			}
			w.recognized = false
			continue
		}
		length := max(s.length, len(s.text))
		direction := bpfMessageDirectionMESSAGE_RECEIVED
		if s.client == (w.role == RoleClient) {
			direction = bpfMessageDirectionMESSAGE_SENT
		}
		start := w.offsets[direction]
		w.offsets[direction] += uint32(length)
		for i := range s.pieces {
			w.call(direction, s.text[i:i+1], 1, start+uint32(i), false)
			w.nowNs++
		}
		w.call(direction, s.text[s.pieces:], length-s.pieces, start+uint32(s.pieces), s.vectored)
		if direction == bpfMessageDirectionMESSAGE_RECEIVED {
			continue
		}
		for _, at := range s.again { // in ways that the kernel side leaves out since it knows what it told of
			w.nowNs++
			prefixes := w.prefix
			w.call(direction, s.text[min(at, len(s.text)):], length-at, start+uint32(at), s.vectored)
			w.prefix = prefixes
		}
	}
	return w
}

// begins is begins_head of bpf/http.bpf.c.
func (w *wire) begins(direction bpfMessageDirection, text string, offset uint32) (head bool, prefix string) {
	kept := w.prefix[direction]
	w.prefix[direction] = ""
	if looksLikeHead(text) {
		return true, ""
	}
	if whole := kept + text; kept != "" && w.prefixEnd[direction] == offset {
		if len(whole) >= 8 {
			if looksLikeHead(whole) {
				return true, kept
			}
		} else if mayBeginHead(whole) {
			prefix, text, offset = kept, whole, offset-uint32(len(kept))
		}
	}
	if len(text) < 8 && mayBeginHead(text) {
		w.prefix[direction], w.prefixEnd[direction] = text, offset+uint32(len(text))
	}
	return false, prefix
}

// call is transferred of bpf/http.bpf.c. Bytes beyond text are all x.
func (w *wire) call(direction bpfMessageDirection, text string, length int, offset uint32, vectored bool) {
	head, prefix := w.begins(direction, text, offset)
	if head {
		w.recognized = true
	}
	if !w.recognized {
		return
	}
	whole := prefix + text + strings.Repeat("x", min(length-len(text), 8192))
	m := message{
		TimeNs: w.nowNs, Cookie: w.cookie, Offset: offset - uint32(len(prefix)), Length: uint32(length + len(prefix)),
		Kind: uint8(bpfMessageKindMESSAGE_DATA), Direction: uint8(direction), SrttUs: 50, Retransmits: 2,
	}
	limit := w.captureLeft[direction]
	if head {
		m.Kind = uint8(bpfMessageKindMESSAGE_HEAD)
		limit = w.headBytes
		w.noteHead(direction, whole)
	} else if w.earlyCalls > 0 && direction == w.asking && int(m.Length) > limit {
		w.earlyCalls--
		limit = maxHeadBytes
	}
	if !vectored && !(m.Length < 8 && w.noShortTails) {
		for i, b := range []byte(whole[max(0, len(whole)-8):]) {
			m.Tail |= uint64(b) << (8 * i)
		}
	}
	if limit == 0 {
		w.messages = append(w.messages, told{message: m})
		return
	}
	data := whole[:min(limit, len(whole))]
	m.Captured = uint16(len(data))
	w.captureLeft[direction] = 0
	if len(data) == int(m.Length) && len(data) < limit && !strings.HasSuffix(data, "\r\n\r\n") {
		w.captureLeft[direction] = limit - len(data)
	}
	w.messages = append(w.messages, told{message: m, head: w.describe(), data: []byte(data)})
}

// mayBeginHead is may_begin_head of bpf/http.bpf.c.
func mayBeginHead(text string) bool {
	for _, start := range []string{
		"HTTP/1.", "GET ", "PUT ", "POST ", "HEAD ", "PATCH ", "TRACE ", "DELETE ", "OPTIONS", "CONNECT",
	} {
		size := min(len(start), len(text))
		if text[:size] == start[:size] {
			return text != ""
		}
	}
	return false
}

// looksLikeHead is looks_like_head of bpf/http.bpf.c.
func looksLikeHead(text string) bool {
	if len(text) < 8 {
		return false
	}
	if strings.HasPrefix(text, "OPTIONS ") || strings.HasPrefix(text, "CONNECT ") || strings.HasPrefix(text, "HTTP/1.") {
		return true
	}
	for _, method := range []string{"GET ", "PUT ", "POST ", "HEAD ", "PATCH ", "TRACE ", "DELETE "} {
		if strings.HasPrefix(text, method) {
			return len(method) == 8 || strings.IndexByte("/hH*", text[len(method)]) >= 0
		}
	}
	return false
}

// observer is a pairing and what it told.
type observer struct {
	*pairing
	exchanges []Exchange
}

func newObserver(maxConnections int) *observer {
	o := &observer{}
	o.pairing = newPairing(maxConnections,
		func(*messageHead, Role) (*workload.Workload, bool) { return nil, true },
		func(e *Exchange) { o.exchanges = append(o.exchanges, *e) })
	return o
}

func (o *observer) take(messages ...told) *observer {
	for i := range messages {
		m := &messages[i]
		o.handle(&m.message, m.head, m.data)
	}
	return o
}

// lines gives the exchanges in short: method, target, status, sizes of the bodies, and error.
func (o *observer) lines() []string {
	lines := []string{}
	for i := range o.exchanges {
		lines = append(lines, line(&o.exchanges[i]))
	}
	return lines
}

func line(e *Exchange) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %d %d %d %s",
		e.Method, e.Target, e.Status, e.RequestBodyBytes, e.ResponseBodyBytes, e.ErrorType))
}

func (o *observer) dropped() (sum uint64) {
	for _, count := range o.drops {
		sum += count
	}
	return sum
}

// bothEnds runs a test for the server's end and for the client's.
func bothEnds(t *testing.T, run func(t *testing.T, role Role)) {
	t.Run("server", func(t *testing.T) { run(t, RoleServer) })
	t.Run("client", func(t *testing.T) { run(t, RoleClient) })
}

func newWire(role Role) *wire { return &wire{role: role, cookie: 11, headBytes: 512} }

func get(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n" }

func post(target string, length int) string {
	return "POST " + target + " HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n"
}

func postChunked(target string) string {
	return "POST " + target + " HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
}

func ok(length int) string { return status(200, length) }

func status(code, length int) string {
	return "HTTP/1.1 " + strconv.Itoa(code) + " Text\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n"
}

const (
	okChunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	okClose   = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
	noContent = "HTTP/1.1 204 No Content\r\n\r\n"
	goOn      = "HTTP/1.1 100 Continue\r\n\r\n"
	lastChunk = "0\r\n\r\n"
	fakeGet   = "GET /fake HTTP/1.1\r\nHost: b\r\n\r\n"
	fakeOK    = "HTTP/1.1 500 Fake\r\nContent-Length: 3\r\n\r\n"
)

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

func xs(count int) string { return strings.Repeat("x", count) }

// long makes a head longer than what is captured of it.
func long(head string) string {
	return strings.TrimSuffix(head, "\r\n") + "Cookie: " + xs(600) + "\r\n\r\n"
}

// cutLong is long with the fields that are captured after those that are not.
func cutLong(firstLine, fields string) string {
	return firstLine + "\r\nCookie: " + xs(600) + "\r\n" + fields + "\r\n"
}

func TestPairing(t *testing.T) {
	tests := []struct {
		name  string
		steps []step
		want  []string
		drops map[dropReason]uint64
	}{
		{"one", []step{request(get("/a")), response(ok(5) + "hello")}, []string{"GET /a 200 0 5"}, nil},
		{"one, then the end", []step{request(get("/a")), response(ok(0)), closing()}, []string{"GET /a 200 0 0"}, nil},
		{"kept alive", []step{
			request(get("/a")), response(ok(5) + "hello"), request(get("/b")), response(status(404, 0)),
			request(post("/c", 3) + "abc"), response(noContent), closing(),
		}, []string{"GET /a 200 0 5", "GET /b 404 0 0", "POST /c 204 3 0"}, nil},
		{"a byte first", []step{
			request(get("/a")), response(ok(5) + "hello").byteFirst(), request(get("/b")).byteFirst(),
			response(ok(1) + "x").byteFirst(), request(post("/c", 9) + "123456789").byteFirst(), response(noContent),
		}, []string{"GET /a 200 0 5", "GET /b 200 0 1", "POST /c 204 9 0"}, nil},

		// Pipelining.
		{"heads in small pieces", []step{
			request(get("/a")).inPieces(3), response(ok(5) + "hello").inPieces(7), request(post("/b", 1) + "x").inPieces(4),
			response(noContent).inPieces(5), request(get("/c")).inPieces(6), response(ok(0)).inPieces(2),
		}, []string{"GET /a 200 0 5", "POST /b 204 1 0", "GET /c 200 0 0"}, nil},
		{"small pieces after a chunked body whose end was not seen", []step{
			request(postChunked("/a")), request(chunk(xs(2000)) + lastChunk).inVectors(),
			response(okChunked), response(chunk(xs(2000)) + lastChunk).inVectors(),
			request(get("/b")).inPieces(3), response(noContent).inPieces(3),
		}, []string{"POST /a 200 -1 -1", "GET /b 204 0 0"}, nil},
		{"several requests in a call", []step{
			request(get("/a") + get("/b") + get("/c")), response(status(201, 1) + "x"), response(status(202, 0)),
			response(status(203, 2) + "xx"),
		}, []string{"GET /a 201 0 1", "GET /b 202 0 0", "GET /c 203 0 2"}, nil},
		{"requests in calls, responses in one", []step{
			request(get("/a")), request(post("/b", 2) + "xx"), request(get("/c")),
			response(status(201, 1) + "x" + status(202, 0) + status(203, 2) + "xx"),
		}, []string{"GET /a 201 0 1", "POST /b 202 2 0", "GET /c 203 0 2"}, nil},
		{"all in one call each way", []step{
			request(get("/a") + post("/b", 2) + "xx" + get("/c")),
			response(status(201, 1) + "x" + okChunked + chunk("abc") + lastChunk + status(203, 2) + "xx"),
		}, []string{"GET /a 201 0 1", "POST /b 200 2 3", "GET /c 203 0 2"}, nil},
		{"a response between two requests", []step{
			request(get("/a")), request(get("/b")), response(ok(1) + "x"), request(get("/c")), response(ok(2) + "xx"),
			response(ok(3) + "xxx"),
		}, []string{"GET /a 200 0 1", "GET /b 200 0 2", "GET /c 200 0 3"}, nil},
		{"heads that begin in a call and end in the next", []step{
			request(get("/a") + get("/b")[:12]), request(get("/b")[12:] + get("/c")), response(ok(1) + "x" + ok(2)[:9]),
			response(ok(2)[9:] + "xx" + ok(3) + "xx"), response("x"),
		}, []string{"GET /a 200 0 1", "GET /b 200 0 2", "GET /c 200 0 3"}, nil},
		{"chunked with trailers, the next in the same call", []step{
			request(postChunked("/a") + chunk("abc") + "0\r\nT: u\r\n\r\n" + get("/b")), response(ok(0)), response(noContent),
		}, []string{"POST /a 200 3 0", "GET /b 204 0 0"}, nil},
		{"more in a call than is captured", []step{
			request(get("/a") + get("/b") + post("/c", 500) + xs(500) + get("/d")), response(status(201, 0)),
			response(status(202, 0)), response(status(203, 0)), response(status(204, 0)),
		}, []string{"GET /a 201 0 0", "GET /b 202 0 0", "POST /c 203 500 0"}, map[dropReason]uint64{dropHiddenHead: 1}},
		{"a hidden request does not lend its response to the next", []step{
			request(post("/a", 500) + xs(500) + get("/b")), request(get("/c")), response(status(201, 0)),
			response(status(202, 0)), response(status(203, 0)),
		}, []string{"POST /a 201 500 0"}, map[dropReason]uint64{dropHiddenHead: 1, dropGap: 1}},
		{"hidden responses", []step{
			request(get("/a") + get("/b") + get("/c")), response(ok(500) + xs(500) + status(202, 0)), response(status(203, 0)),
		}, []string{"GET /a 200 0 500"}, map[dropReason]uint64{dropHiddenHead: 1, dropGap: 1}},

		// Bodies with a length.
		{"a body in many calls", []step{
			request(post("/a", 30)), request(xs(10)), request(xs(10)), request(xs(10)), response(ok(1000)),
			response(xs(999)), response("x"), request(get("/b")), response(ok(0)),
		}, []string{"POST /a 200 30 1000", "GET /b 200 0 0"}, nil},
		{"the next in the call that ends a body", []step{
			request(post("/a", 10) + xs(3)), request(xs(7) + get("/b")), response(ok(10) + xs(3)), response(xs(7) + ok(1) + "x"),
		}, []string{"POST /a 200 10 10", "GET /b 200 0 1"}, nil},
		{"the next in the call that ends a body, which is not captured", []step{
			request(post("/a", 10)), request(xs(10) + get("/b")), response(ok(0)), response(ok(1) + "x"),
			request(get("/c")), response(noContent),
		}, []string{"POST /a 200 10 0", "GET /c 204 0 0"}, map[dropReason]uint64{dropHiddenHead: 1}},
		{"a body larger than what is captured", []step{
			request(post("/a", 100000)).sized(len(post("/a", 100000)) + 100000),
			response(ok(70000)).sized(len(ok(70000)) + 70000), request(get("/b")), response(noContent),
		}, []string{"POST /a 200 100000 70000", "GET /b 204 0 0"}, nil},
		{"bodies that look like heads", []step{
			request(post("/a", 2*len(fakeGet)+5)), request(fakeGet), request(fakeGet), request("12345"),
			response(ok(2 * len(fakeOK))), response(fakeOK), response(fakeOK), request(get("/b")), response(noContent),
		}, []string{
			fmt.Sprintf("POST /a 200 %d %d", 2*len(fakeGet)+5, 2*len(fakeOK)), "GET /b 204 0 0",
		}, nil},
		{"bodies that look like the other kind", []step{
			request(post("/a", len(fakeOK))), request(fakeOK), response(ok(len(fakeGet))), response(fakeGet),
			request(get("/b")), response(noContent),
		}, []string{fmt.Sprintf("POST /a 200 %d %d", len(fakeOK), len(fakeGet)), "GET /b 204 0 0"}, nil},
		{"bodies in the call with the head that look like heads", []step{
			request(post("/a", len(fakeGet)) + fakeGet), response(ok(len(fakeOK)) + fakeOK), request(get("/b")), response(noContent),
		}, []string{fmt.Sprintf("POST /a 200 %d %d", len(fakeGet), len(fakeOK)), "GET /b 204 0 0"}, nil},

		// Chunked bodies.
		{"chunked in one call", []step{
			request(postChunked("/a") + chunk("abc") + lastChunk), response(okChunked + chunk("hello") + lastChunk),
		}, []string{"POST /a 200 3 5"}, nil},
		{"chunked, larger than what is captured", []step{
			request(postChunked("/a") + chunk(xs(1000)) + lastChunk), response(okChunked + chunk(xs(1000)) + lastChunk),
			request(get("/b")), response(noContent),
		}, []string{"POST /a 200 1000 1000", "GET /b 204 0 0"}, nil},
		{"chunked, in calls that are captured", []step{
			request(postChunked("/a")), request(chunk("abc")), request(lastChunk), response(okChunked + chunk("a")),
			response(chunk("hello")), response(lastChunk),
		}, []string{"POST /a 200 ~3 6"}, nil},
		{"chunked, the end with the last chunk", []step{
			request(postChunked("/a")), request(chunk("abc") + lastChunk), response(okChunked), response(chunk(xs(2000))),
			response(chunk(xs(30)) + lastChunk),
		}, []string{"POST /a 200 -1 -1"}, nil},
		{"chunked, its end in two calls", []step{
			request(get("/a")), response(okChunked + chunk("abc")), response("0\r\n"), response("\r\n"),
		}, []string{"GET /a 200 0 ~3"}, nil},
		{"chunked, its end not captured: the next ends it", []step{
			request(get("/a")), response(okChunked), response(chunk(xs(2000))), response(lastChunk),
			request(get("/b")), response(ok(0)), request(get("/c")), response(noContent),
		}, []string{"GET /a 200 0 -1", "GET /b 200 0 0", "GET /c 204 0 0"}, nil},
		{"chunked, its end in memory that is not looked at", []step{
			request(postChunked("/a")), request(chunk(xs(2000)) + lastChunk).inVectors(),
			response(okChunked + chunk(xs(2000)) + lastChunk).inVectors(), request(get("/b")), response(noContent),
		}, []string{"POST /a 200 -1 -1", "GET /b 204 0 0"}, nil},
		{"chunked, its end not captured: the end ends it", []step{
			request(get("/a")), response(okChunked), response(chunk(xs(2000))), response(lastChunk), closing(),
		}, []string{"GET /a 200 0 -1"}, nil},
		{"chunked requests, their ends not captured", []step{
			request(postChunked("/a")), request(chunk(xs(2000))), request(lastChunk), response(ok(0)),
			request(postChunked("/b")), request(chunk(xs(2000))), request(lastChunk), response(noContent),
			request(get("/c")), response(ok(1) + "x"),
		}, []string{"POST /a 200 -1 0", "POST /b 204 -1 0", "GET /c 200 0 1"}, nil},
		{"trailers", []step{
			request(get("/a")), response(okChunked), response(chunk(xs(20)) + "0\r\nServer-Timing: a\r\n\r\n"),
			request(get("/b")), response(okChunked + chunk("a") + "0\r\nServer-Timing: a\r\n\r\n"), request(get("/c")),
			response(noContent),
		}, []string{"GET /a 200 0 -1", "GET /b 200 0 1", "GET /c 204 0 0"}, nil},
		{"chunks that look like heads", []step{
			request(postChunked("/a")), request(fmt.Sprintf("%x\r\n%s", 700+len(fakeGet), xs(700))), request(fakeGet),
			request("\r\n" + lastChunk + ""), response(okChunked), response(fmt.Sprintf("%x\r\n%s", 700+len(fakeOK), xs(700))),
			response(fakeOK), response("\r\n" + lastChunk), request(get("/b")), response(noContent),
		}, []string{"POST /a 200 -1 -1", "GET /b 204 0 0"}, nil},
		{"a chunk that looks like an end", []step{
			request(get("/a")), response(okChunked), response(fmt.Sprintf("%x\r\n%s", 1400, xs(693)+"\r\n"+lastChunk)),
			response(xs(700) + "\r\n" + lastChunk), request(get("/b")), response(noContent),
		}, []string{"GET /a 200 0 -1", "GET /b 204 0 0"}, nil},

		{"answered early, the rest comes with the next request", []step{
			request(postChunked("/a") + "3e8\r\n" + xs(100)), response(ok(0)),
			request(xs(900) + "\r\n" + lastChunk + postChunked("/b")), response(ok(1) + "x"),
			request(chunk("abc") + lastChunk + get("/c")), response(noContent),
		}, []string{"POST /a 200 -1 0", "POST /b 200 -1 1", "GET /c 204 0 0"}, nil},
		{"answered early, the rest comes with several requests", []step{
			request(postChunked("/a") + "3e8\r\n" + xs(100)), response(ok(0)),
			request(xs(900) + "\r\n" + lastChunk + get("/b") + get("/c")), response(ok(1) + "x"), response(noContent),
		}, []string{"POST /a 200 -1 0", "GET /b 200 0 1", "GET /c 204 0 0"}, nil},
		{"answered early, the rest ends like a request", []step{
			request(postChunked("/a")), response(ok(0)), request(chunk(xs(500)+lastChunk+fakeGet+xs(500)) + lastChunk),
			request(get("/b")), response(noContent),
		}, []string{"POST /a 200 -1 0", "GET /b 204 0 0"}, nil},

		// Without a body.
		{"HEAD", []step{
			request("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"), response(ok(5000)), request(get("/b")), response(ok(1) + "x"),
		}, []string{"HEAD /a 200 0 0", "GET /b 200 0 1"}, nil},
		{"pipelined HEAD", []step{
			request("HEAD /a HTTP/1.1\r\n\r\n" + get("/b") + "HEAD /c HTTP/1.1\r\n\r\n"), response(ok(5000) + ok(1) + "x" + okChunked),
		}, []string{"HEAD /a 200 0 0", "GET /b 200 0 1", "HEAD /c 200 0 0"}, nil},
		{"204 and 304 with a length", []step{
			request(get("/a")), response(status(204, 7)), request(get("/b")), response(status(304, 5000)),
			request(get("/c")), response(ok(0)),
		}, []string{"GET /a 204 0 0", "GET /b 304 0 0", "GET /c 200 0 0"}, nil},

		// Interim responses.
		{"100, then the body", []step{
			request(post("/a", 5)), response(goOn), request("hello"), response(ok(2) + "ok"), request(get("/b")),
			response(noContent),
		}, []string{"POST /a 200 5 2", "GET /b 204 0 0"}, nil},
		{"100 with the final response", []step{
			request(post("/a", 5) + "hello"), response(goOn + ok(2) + "ok"), request(get("/b")), response(noContent),
		}, []string{"POST /a 200 5 2", "GET /b 204 0 0"}, nil},
		{"100 refused", []step{
			request(strings.Replace(post("/a", 5), "Host", "Expect: 100-continue\r\nHost", 1)), response(status(417, 0)),
			request(get("/b")), response(noContent), closing(),
		}, []string{"POST /a 417 -1 0", "GET /b 204 0 0"}, nil},
		{"early hints", []step{
			request(get("/a")), response("HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n"),
			response("HTTP/1.1 103 Early Hints\r\nLink: </t>\r\n\r\n"), response(ok(1) + "x"),
		}, []string{"GET /a 200 0 1"}, nil},

		// Upgrades.
		{"101", []step{
			request("GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
			response("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
			request(fakeGet), response(fakeOK), request("12345"), closing(),
		}, []string{"GET /a 101 0 0"}, nil},
		{"101 with bytes in the same call", []step{
			request("GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
			response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + fakeOK), request(fakeGet), closing(),
		}, []string{"GET /a 101 0 0"}, nil},
		{"101 with a long head", []step{
			request("GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
			response(long("HTTP/1.1 101 Switching Protocols\r\n\r\n")), request(fakeGet), response(fakeOK),
		}, []string{"GET /a 101 0 0"}, nil},
		{"CONNECT", []step{
			request("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"), response("HTTP/1.1 200 OK\r\n\r\n"), request(fakeGet),
			response(fakeOK), closing(),
		}, []string{"CONNECT a:443 200 0 0"}, nil},
		{"CONNECT refused", []step{
			request("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"), response(status(407, 3) + "abc"), request(get("/b")),
			response(noContent),
		}, []string{"CONNECT a:443 407 0 3", "GET /b 204 0 0"}, nil},
		{"an offer to upgrade is no tunnel", []step{
			request(get("/a")), response("HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok"),
			request(get("/b")), response(noContent),
		}, []string{"GET /a 200 0 2", "GET /b 204 0 0"}, nil},

		// Until the connection ends.
		{"until the end", []step{
			request(get("/a")), response(okClose + xs(10)), response(xs(3000)), response(fakeOK), closing(),
		}, []string{"GET /a 200 0 -1"}, nil},
		{"until a failure", []step{
			request(get("/a")), response(okClose + xs(10)), response(xs(3000)), failing(int32(unix.ECONNRESET)),
		}, []string{"GET /a 200 0 -1 ECONNRESET"}, nil},

		// Responses before the request is whole.
		{"early response", []step{
			request(post("/a", 5000) + xs(10)), response(status(413, 3) + "big"), request(xs(4990)), request(get("/b")), response(noContent),
		}, []string{"POST /a 413 -1 3", "GET /b 204 0 0"}, nil},
		{"early response, then the end", []step{
			request(post("/a", 5000) + xs(10)), response(status(413, 3) + "big"), request(xs(100)), closing(),
		}, []string{"POST /a 413 -1 3"}, nil},
		{"response while the request goes on", []step{
			request(post("/a", 20)), request(xs(10)), response(ok(10)), response(xs(5)), request(xs(10)), response(xs(5)),
		}, []string{"POST /a 200 20 10"}, nil},
		{"response before the head is whole", []step{
			request("POST /a HTTP/1.1\r\nHost: a\r\n"), response(status(408, 0)), closing(),
		}, []string{"POST /a 408 -1 0"}, nil},

		// Heads in pieces, and long ones.
		{"heads in many calls", []step{
			request(post("/a", 3)[:9]), request(post("/a", 3)[9:20]), request(post("/a", 3)[20:21]),
			request(post("/a", 3)[21:] + "abc"), response(ok(2)[:15]), response(ok(2)[15:] + "o"), response("k"),
		}, []string{"POST /a 200 3 2"}, nil},
		{"a head that ends where the capture does", []step{
			request("GET /a HTTP/1.1\r\nA: " + xs(512-24) + "\r\n\r\n"), response(ok(0)),
		}, []string{"GET /a 200 0 0"}, nil},
		{"a head whose first call fills the capture", []step{
			request("GET /a HTTP/1.1\r\nA: " + xs(512-20)), request("\r\nB: c\r\n\r\n"), response(ok(0)), request(get("/b")),
			response(noContent),
		}, []string{"GET /a 200 -1 0", "GET /b 204 0 0"}, nil},
		{"long heads", []step{
			request(long(get("/a"))), response(long(ok(5)) + "hello"), request(get("/b")), response(ok(1) + "x"),
			request(cutLong("POST /c HTTP/1.1", "Content-Length: 3\r\n")), request("abc"), response(noContent),
			request(get("/d")), response(noContent),
		}, []string{"GET /a 200 -1 -1", "GET /b 200 0 1", "POST /c 204 -1 0", "GET /d 204 0 0"}, nil},
		{"long heads both ways", []step{
			request(cutLong("POST /a HTTP/1.1", "Content-Length: 3\r\n")), request("abc"), response(long(ok(5)) + "hello"),
			request(cutLong("POST /b HTTP/1.1", "Content-Length: 3\r\n")), request("abc"), response(long(status(201, 5)) + "hello"),
			request(cutLong("POST /c HTTP/1.1", "Content-Length: 3\r\n") + "abc"), response(long(status(202, 5))), closing(),
		}, []string{"POST /a 200 -1 -1", "POST /b 201 -1 -1", "POST /c 202 -1 -1"}, nil},
		{"a long response, then the end", []step{
			request(get("/a")), response(cutLong("HTTP/1.1 200 OK", "Content-Length: 3\r\n") + "abc"),
			failing(int32(unix.ECONNRESET)),
		}, []string{"GET /a 200 0 -1"}, nil},
		{"a chunked response, and in the same call its end and another response, of pipelined requests", []step{
			request(get("/a") + get("/b")), response(okChunked), response(chunk(xs(10)) + lastChunk + status(404, 0)),
			request(get("/c") + get("/d")), response(status(201, 0)), response(status(202, 0)),
		}, []string{"GET /a 200 0 -1"}, map[dropReason]uint64{dropGap: 3}},
		{"long requests, pipelined", []step{
			request(long(get("/a"))), request(long(get("/b"))), response(status(201, 0)), response(status(202, 0)),
		}, []string{"GET /a 201 -1 0", "GET /b 202 -1 0"}, nil},
		{"long responses, pipelined", []step{
			request(get("/a") + get("/b") + get("/c")), response(long(status(201, 0))), response(status(202, 0)),
			response(status(203, 0)),
		}, []string{"GET /a 201 0 -1"}, map[dropReason]uint64{dropGap: 2}},

		// Aborted.
		{"no response", []step{request(get("/a")), closing()}, []string{"GET /a 0 0 -1 connection_closed"}, nil},
		{"no response, failed", []step{
			request(post("/a", 10) + "abc"), failing(int32(unix.ETIMEDOUT)),
		}, []string{"POST /a 0 -1 -1 ETIMEDOUT"}, nil},
		{"after an interim response", []step{
			request(post("/a", 3)), response(goOn), closing(),
		}, []string{"POST /a 0 -1 -1 connection_closed"}, nil},
		{"in the middle of a body", []step{
			request(get("/a")), response(ok(10) + "hello"), failing(int32(unix.ECONNRESET)),
		}, []string{"GET /a 200 0 -1 ECONNRESET"}, nil},
		{"in the middle of a chunked body", []step{
			request(get("/a")), response(okChunked + chunk("hello")), response(xs(5000)), closing(),
		}, []string{"GET /a 200 0 -1 connection_closed"}, nil},
		{"after the head of a chunked response", []step{
			request(get("/a")), response(okChunked), closing(),
		}, []string{"GET /a 200 0 -1 connection_closed"}, nil},
		{"in the head of a response", []step{
			request(get("/a")), response("HTTP/1.1 404 Not Found\r\nConte"), closing(),
		}, []string{"GET /a 404 0 -1 connection_closed"}, nil},
		{"in the head of a request", []step{
			request(get("/a")), response(ok(0)), request("GET /b HTTP/1.1\r\nHo"), closing(),
		}, []string{"GET /a 200 0 0"}, nil},
		{"several requests", []step{
			request(get("/a") + get("/b") + get("/c")), response(ok(0) + ok(0)), closing(),
		}, []string{"GET /a 200 0 0", "GET /b 200 0 0", "GET /c 0 0 -1 connection_closed"}, nil},
		{"idle", []step{
			request(get("/a")), response(ok(0)), failing(int32(unix.ECONNRESET)),
		}, []string{"GET /a 200 0 0"}, nil},

		// Told of twice.
		{"sent again from the beginning", []step{
			request(get("/a")).toldAgain(0), response(ok(5) + "hello").toldAgain(0), request(get("/b")).toldAgain(0, 0),
			response(noContent).toldAgain(0, 0),
		}, []string{"GET /a 200 0 5", "GET /b 204 0 0"}, nil},
		{"sent again from within a head", []step{
			request(get("/a")).toldAgain(3), response(ok(5) + "hello").toldAgain(10), request(get("/b")[:20]).toldAgain(10),
			request(get("/b")[20:]).toldAgain(2), response(noContent[:20]).toldAgain(0, 9), response(noContent[20:]).toldAgain(1),
		}, []string{"GET /a 200 0 5", "GET /b 204 0 0"}, nil},
		{"sent in segments", []step{
			request(post("/a", 300000)).sized(len(post("/a", 300000))+300000).toldAgain(65536, 131072, 196608, 262144),
			response(ok(200000)).sized(len(ok(200000))+200000).toldAgain(0, 65536, 131072), request(get("/b")), response(noContent),
		}, []string{"POST /a 200 300000 200000", "GET /b 204 0 0"}, nil},
		{"sent in many segments", []step{
			request(post("/a", 2000000)).sized(len(post("/a", 2000000))+2000000).toldAgain(1000000, 1500000),
			response(ok(2000000)).sized(len(ok(2000000))+2000000).toldAgain(1000000, 1600000, 1900000), request(get("/b")),
			response(noContent),
		}, []string{"POST /a 200 2000000 2000000", "GET /b 204 0 0"}, nil},
		{"segments that look like heads", []step{
			request(post("/a", 2*len(fakeGet)) + fakeGet + fakeGet).toldAgain(len(post("/a", 2*len(fakeGet)))),
			response(ok(len(fakeOK)) + fakeOK).toldAgain(len(ok(len(fakeOK)))), request(get("/b")), response(noContent),
		}, []string{fmt.Sprintf("POST /a 200 %d %d", 2*len(fakeGet), len(fakeOK)), "GET /b 204 0 0"}, nil},
		{"segments of a chunked body", []step{
			request(get("/a")), response(okChunked + chunk(xs(100000)) + lastChunk).toldAgain(65536), request(get("/b")),
			response(noContent),
		}, []string{"GET /a 200 0 100000", "GET /b 204 0 0"}, nil},

		// What is no HTTP.
		{"line breaks between requests", []step{
			request(post("/a", 1) + "x\r\n"), response(ok(0)), request(get("/b")), response(noContent),
		}, []string{"POST /a 200 1 0", "GET /b 204 0 0"}, nil},
		{"malformed request", []step{
			request("GET /a b c HTTP/1.1\r\n\r\n"), response(status(400, 0)), request(get("/b")), response(noContent),
		}, []string{"GET /b 204 0 0"}, map[dropReason]uint64{dropMalformed: 1}},
		{"malformed response", []step{
			request(get("/a")), response("HTTP/1.1 abc\r\n\r\n"), request(get("/b")), response(noContent),
		}, []string{"GET /b 204 0 0"}, map[dropReason]uint64{dropMalformed: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				for i, start := range []uint32{0, 77, math.MaxUint32 - 20, math.MaxUint32 - 300} {
					w := newWire(role)
					w.noShortTails = i%2 == 0
					w.offsets = [2]uint32{start, start}
					before := []string{}
					if start != 0 {
						w.play(request(get("/before")), response(ok(1)+"x"))
						before = []string{"GET /before 200 0 1"}
					}
					o := newObserver(10).take(w.play(test.steps...).messages...)
					checkLines(t, append(before, test.want...), o.lines(), "at %d", start)
					want := [dropReasons]uint64{}
					for reason, count := range test.drops {
						want[reason] = count
					}
					assert.Equal(t, want, o.drops, "at %d", start)
					checkBounds(t, o.pairing)
				}
			})
		})
	}
}

// checkLines compares what is told of exchanges. A size after a tilde may be unknown.
func checkLines(t *testing.T, want, told []string, message ...any) {
	t.Helper()
	want = slices.Clone(want)
	for i := range min(len(want), len(told)) {
		fields, toldFields := strings.Fields(want[i]), strings.Fields(told[i])
		for j := range min(len(fields), len(toldFields)) {
			size, uncertain := strings.CutPrefix(fields[j], "~")
			if fields[j] = size; uncertain && toldFields[j] == "-1" {
				fields[j] = "-1"
			}
		}
		want[i] = strings.Join(fields, " ")
	}
	assert.Equal(t, want, told, message...)
}

func TestPairingJoinedMidway(t *testing.T) {
	tests := []struct {
		name  string
		steps []step
		want  []string
		drops map[dropReason]uint64
	}{
		{"a response first", []step{
			response(ok(5) + "hello"), request(get("/b")), response(ok(1) + "x"),
		}, []string{"GET /b 200 0 1"}, nil},
		{"a response to HEAD first", []step{
			response(ok(5000)), request(get("/b")), response(ok(1) + "x"),
		}, []string{"GET /b 200 0 1"}, nil},
		{"a body first", []step{
			request(xs(100)), response(ok(5) + "hello"), request(get("/b")), response(ok(1) + "x"),
		}, []string{"GET /b 200 0 1"}, nil},
		{"the body of a response first", []step{
			request(xs(10)), response(xs(100)), request(get("/b")), response(ok(1) + "x"),
		}, []string{"GET /b 200 0 1"}, nil},
		{"a body that looks like a response first", []step{
			request(fakeOK), response(ok(5) + "hello"), request(get("/b")), response(ok(1) + "x"),
			request(get("/c")), response(noContent),
		}, []string{"GET /b 200 0 1", "GET /c 204 0 0"}, map[dropReason]uint64{dropMalformed: 1}},
		{"a body that looks like a request first", []step{
			response(fakeGet), request(get("/b")), response(ok(1) + "x"), request(get("/c")), response(noContent),
		}, []string{"GET /b 200 0 1", "GET /c 204 0 0"}, map[dropReason]uint64{dropMalformed: 1}},
		{"an upgrade first", []step{
			response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\n"), request(fakeGet), response(fakeOK), closing(),
		}, []string{}, nil},
		{"the rest of a body, then a response", []step{
			response(goOn), request(xs(100)), response(ok(0)), request(get("/b")), response(ok(1) + "x"),
		}, []string{"GET /b 200 0 1"}, nil},
		{"a response before the rest of a body", []step{
			response(status(413, 0)), request(xs(100)), request(get("/b")), response(ok(1) + "x"),
		}, []string{"GET /b 200 0 1"}, nil},
		{"a response whose end is not told first", []step{
			response(okChunked), response(chunk(xs(2000))), response(lastChunk), request(get("/b")), response(ok(1) + "x"),
		}, []string{"GET /b 200 0 1"}, nil},
		{"responses to requests that are none for the kernel side", []step{
			request("PROPFIND /a HTTP/1.1\r\nHost: a\r\n\r\n"), response(ok(0)),
			request("PROPFIND /b HTTP/1.1\r\nHost: a\r\n\r\n"), response(ok(0)), request(get("/c")), response(ok(0)),
		}, []string{"GET /c 200 0 0"}, map[dropReason]uint64{dropUnpaired: 1}},
		{"a response, then the end", []step{response(ok(0)), closing()}, []string{}, nil},
		{"a request without a response", []step{
			request(get("/a")), closing(), // whether there was one cannot be told
		}, []string{}, map[dropReason]uint64{dropGap: 1}},
		{"a body with several requests first", []step{
			request(fakeGet), request(fakeGet), response(ok(0)), request(get("/b")), response(noContent),
		}, []string{}, map[dropReason]uint64{dropGap: 3}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				for _, start := range []uint32{77, math.MaxUint32 - 20} {
					w := newWire(role)
					w.offsets = [2]uint32{start, start}
					o := newObserver(10).take(w.play(test.steps...).messages...)
					assert.Equal(t, test.want, o.lines())
					want := [dropReasons]uint64{}
					for reason, count := range test.drops {
						want[reason] = count
					}
					assert.Equal(t, want, o.drops)
				}
			})
		})
	}
}

// TestPairingOfPrograms is about the time in which some programs of the kernel side are attached and others are not.
func TestPairingOfPrograms(t *testing.T) {
	bothEnds(t, func(t *testing.T, role Role) {
		w := newWire(role)
		for i := range 10 {
			w.play(request(get(fmt.Sprintf("/%d", i))), response(ok(0)))
		}
		var messages []told
		for _, m := range w.messages { // one program comes before the other, and goes before it
			partly := m.TimeNs < 4500 || m.TimeNs >= 15500
			if !partly || m.Direction == uint8(bpfMessageDirectionMESSAGE_SENT) {
				messages = append(messages, m)
			}
		}
		o := newObserver(10)
		o.sinceNs, o.untilNs = 4500, 15500
		o.take(messages...)
		assert.Equal(t, []string{
			"GET /2 200 0 0", "GET /3 200 0 0", "GET /4 200 0 0", "GET /5 200 0 0", "GET /6 200 0 0",
		}, o.lines())
		assert.Zero(t, o.dropped())
	})
}

// TestPairingEnd is about messages that were lost just before the end, which tells how far the streams went.
func TestPairingEnd(t *testing.T) {
	one := []step{request(get("/a")), response(ok(0))}
	with := func(steps ...step) []step { return append(slices.Clip(one), steps...) }
	gap := func(count uint64) map[dropReason]uint64 { return map[dropReason]uint64{dropGap: count} }
	tests := []struct {
		name  string
		steps []step
		lost  []int // messages, by their place
		want  []string
		drops map[dropReason]uint64
	}{
		{"a response", with(request(get("/b")), response(ok(3)+"abc"), closing()), []int{3}, []string{"GET /a 200 0 0"}, gap(1)},
		{"the first response", []step{request(get("/a")), response(ok(0)), closing()}, []int{1}, []string{}, gap(1)},
		{"a response, and a failure", with(request(get("/b")), response(ok(3)+"abc"), failing(int32(unix.ECONNRESET))), []int{3},
			[]string{"GET /a 200 0 0"}, gap(1)},
		{"a request", with(request(get("/b")), response(ok(0)), closing()), []int{2},
			[]string{"GET /a 200 0 0"}, map[dropReason]uint64{dropUnpaired: 1}},
		{"an exchange", with(request(get("/b")), response(ok(0)), closing()), []int{2, 3}, []string{"GET /a 200 0 0"}, gap(1)},
		{"a request without a response", with(request(get("/b")), closing()), []int{2}, []string{"GET /a 200 0 0"}, gap(1)},
		{"the last of a body", with(request(get("/b")), response(ok(5)), response(xs(5)), closing()), []int{4},
			[]string{"GET /a 200 0 0", "GET /b 200 0 5"}, nil},
		{"the last of a long body", with(request(get("/b")), response(ok(3<<30)), response("").sized(3<<30), closing()), []int{4},
			[]string{"GET /a 200 0 0", fmt.Sprintf("GET /b 200 0 %d", 3<<30)}, nil},
		{"not the last of a body", with(request(get("/b")), response(ok(50)), response(xs(49)), closing()), []int{4},
			[]string{"GET /a 200 0 0", "GET /b 200 0 -1 connection_closed"}, nil},
		{"the last of a body and another response", with(request(get("/b")), request(get("/c")), response(ok(5)),
			response(xs(5)+ok(0)), closing()), []int{5}, []string{"GET /a 200 0 0", "GET /b 200 0 5"}, gap(1)},
		{"the last of a body before an answer that never came", with(request(get("/b")), request(get("/c")), response(ok(5)),
			response(xs(5)), closing()), []int{5},
			[]string{"GET /a 200 0 0", "GET /b 200 0 5", "GET /c 0 0 -1 connection_closed"}, nil},
		{"the last of a chunked body", with(request(get("/b")), response(okChunked), response(chunk("abc")+lastChunk),
			closing()), []int{4}, []string{"GET /a 200 0 0", "GET /b 200 0 -1"}, nil},
		{"the rest of a head", with(request(get("/b")), response(ok(3)[:20]), response(ok(3)[20:]+"abc"), closing()), []int{4},
			[]string{"GET /a 200 0 0"}, gap(1)},
		{"the beginning of a head", with(request(get("/b")), response(ok(3)[:10]), closing()), []int{3},
			[]string{"GET /a 200 0 0", "GET /b 0 0 -1 connection_closed"}, nil},
		{"the body of a request", with(request(post("/b", 20)), request(xs(20)), closing()), []int{3},
			[]string{"GET /a 200 0 0", "POST /b 0 20 -1 connection_closed"}, nil},
		{"the body of a request and another one", with(request(post("/b", 20)), request(xs(20)+get("/c")), closing()), []int{3},
			[]string{"GET /a 200 0 0", "POST /b 0 20 -1 connection_closed"}, gap(1)},
		{"the rest of a request's head", with(request(get("/b")[:20]), request(get("/b")[20:]), closing()), []int{3},
			[]string{"GET /a 200 0 0"}, gap(1)},
		{"the response to requests that were forgotten", with(request(get("/b")), request(get("/c")),
			response("HTTP/1.1 abc\r\n\r\n"), response(ok(0)), closing()), []int{5}, []string{"GET /a 200 0 0"}, map[dropReason]uint64{dropMalformed: 1, dropGap: 1}},
		{"what a tunnel carries", with(request("CONNECT a:443 HTTP/1.1\r\n\r\n"), response("HTTP/1.1 200 OK\r\n\r\n"),
			request(xs(500)), response(xs(500)), closing()), []int{4, 5}, []string{"GET /a 200 0 0", "CONNECT a:443 200 0 0"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				for _, start := range []uint32{0, math.MaxUint32 - 20} {
					w := newWire(role)
					w.offsets = [2]uint32{start, start}
					w.play(test.steps...)
					o := newObserver(10)
					for i := range w.messages {
						if !slices.Contains(test.lost, i) {
							o.take(w.messages[i])
						}
					}
					if start != 0 && test.name == "the first response" {
						continue // TestPairingJoinedMidway
					}
					want := [dropReasons]uint64{}
					for reason, count := range test.drops {
						want[reason] = count
					}
					assert.Equal(t, test.want, o.lines(), "at %d", start)
					assert.Equal(t, want, o.drops, "at %d", start)
					assert.Empty(t, o.connections)
					assert.Empty(t, o.clients)
				}
			})
		})
	}

	// What TLS carries has other offsets than the socket, whose end this is.
	bothEnds(t, func(t *testing.T, role Role) {
		w := newWire(role).play(request(get("/a")), response(ok(5)+"hello"), request(get("/b")), closing())
		for i := range w.messages[:3] {
			w.messages[i].Flags |= uint8(bpfMessageFlagMESSAGE_SECURE)
		}
		w.messages[3].Offset += 2000
		w.messages[3].Length += 2000
		o := newObserver(1).take(w.messages...)
		assert.Equal(t, []string{"GET /a 200 0 5", "GET /b 0 0 -1 connection_closed"}, o.lines())
		assert.Zero(t, o.drops)
	})

	// A response that was taken from the process and had not gone out.
	w := newWire(RoleServer).play(request(get("/a")), response(ok(5)+"hello"), request(get("/b")), closing())
	w.messages[3].Offset -= 20
	assert.Equal(t, []string{"GET /a 200 0 5", "GET /b 0 0 -1 connection_closed"}, newObserver(1).take(w.messages...).lines())
}

// TestPairingOfRecording has the last messages of a connection as a benchmark had them: the end of the stream was counted as
// a byte before the last request.
func TestPairingOfRecording(t *testing.T) {
	w := newWire(RoleServer)
	w.offsets = [2]uint32{105984, 483333}
	ask := "GET /greeting HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
	answer := "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 19:39:48 GMT\r\nContent-Length: 102\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n\r\n" + xs(102)
	w.play(request(ask), response(answer))
	w.offsets[bpfMessageDirectionMESSAGE_RECEIVED]++
	w.play(request(ask), response(answer), failing(int32(unix.EPIPE)))
	require.EqualValues(t, 106033, w.messages[2].Offset)
	o := newObserver(10).take(w.messages...)
	assert.Equal(t, []string{"GET /greeting 200 0 102", "GET /greeting 200 0 102"}, o.lines())
	assert.Zero(t, o.drops)
}

// TestPairingUnreadable is about messages that begin in memory that the kernel side could not read.
func TestPairingUnreadable(t *testing.T) {
	for name, test := range map[string]struct {
		unread int // message
		want   []string
	}{
		"request":      {2, []string{"GET /a 200 0 0", "POST /c 200 100 700"}},
		"response":     {3, []string{"GET /a 200 0 0", "POST /c 200 100 700"}},
		"request body": {5, []string{"GET /a 200 0 0", "GET /b 200 0 0", "POST /c 200 100 700"}},
		"body":         {7, []string{"GET /a 200 0 0", "GET /b 200 0 0", "POST /c 200 100 700"}},
	} {
		t.Run(name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				w := newWire(role).play(request(get("/a")), response(ok(0)), request(get("/b")), response(ok(0)),
					request(post("/c", 100)), request(xs(100)), response(ok(700)), response(xs(700)), closing())
				m := &w.messages[test.unread]
				m.Kind, m.Error, m.Captured, m.head, m.data = uint8(bpfMessageKindMESSAGE_DATA), -int32(unix.EFAULT), 0, nil, nil
				o := newObserver(10).take(w.messages...)
				assert.Equal(t, test.want, o.lines())
				assert.EqualValues(t, 3-len(test.want), o.drops[dropUnreadable])
				assert.Equal(t, o.drops[dropUnreadable], o.dropped(), "counted once")
			})
		})
	}
}

// checkBounds checks what must hold at any time.
func checkBounds(t testing.TB, p *pairing) {
	t.Helper()
	require.LessOrEqual(t, len(p.connections), p.maxConnections)
	waiting := 0
	for _, c := range p.connections {
		require.LessOrEqual(t, len(c.pending), maxPending)
		if c.role == RoleClient {
			waiting += len(c.pending)
		}
		for i := range c.streams {
			require.LessOrEqual(t, len(c.streams[i].head), maxHeadBytes)
			require.LessOrEqual(t, cap(c.streams[i].head), 2*maxHeadBytes)
			require.GreaterOrEqual(t, c.streams[i].left, int64(0))
		}
		require.False(t, c.answering && len(c.pending) == 0)
	}
	require.LessOrEqual(t, len(p.clients), waiting, "nothing is left of clients that wait no more")
}

// TestPairingDetails is about what the lines of TestPairing do not show.
func TestPairingDetails(t *testing.T) {
	traced := "GET /a HTTP/1.0\r\nHost: h:1\r\nUser-Agent: u\r\ntraceparent: p\r\ntracestate: s\r\nConnection: keep-alive\r\n\r\n"
	steps := []step{
		request(traced),                    // at 1000
		response(ok(10)), response(xs(10)), // at 2000 and 3000
		request(get("/b")).byteFirst(),     // at 4000
		response(ok(5) + xs(5)), closing(), // at 5000
	}
	bothEnds(t, func(t *testing.T, role Role) {
		local, peer := netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("127.0.0.2:40000")
		if role == RoleClient {
			local, peer = peer, local
		}
		o := newObserver(10).take(newWire(role).play(steps...).messages...)
		require.Len(t, o.exchanges, 2)
		want := Exchange{
			Role: role, StartNs: 1000, ResponseNs: 2000, EndNs: 3000, Method: "GET", Target: "/a", Host: "h:1", UserAgent: "u",
			TraceParent: "p", TraceState: "s", MinorVersion: 0, Status: 200, ResponseBodyBytes: 10, Local: local, Peer: peer,
			GRPCStatus: -1, FlowID: 77<<32 | 80, SRTTUs: 50, Retransmits: 2,
		}
		assert.Equal(t, want, o.exchanges[0])
		const late = 1 // the rest of the request comes after its first byte
		want = Exchange{
			Role: role, StartNs: 4000, ResponseNs: 5000 + late, EndNs: 5000 + late, Method: "GET", Target: "/b", Host: "a",
			MinorVersion: 1, Status: 200, ResponseBodyBytes: 5, Local: local, Peer: peer,
			GRPCStatus: -1, FlowID: 77<<32 | 80, RequestOffset: uint32(len(traced)), SRTTUs: 50, Retransmits: 2,
		}
		assert.Equal(t, want, o.exchanges[1])
	})
}

func TestPairingTimes(t *testing.T) {
	type times struct{ start, response, end uint64 }
	tests := []struct {
		name  string
		steps []step
		want  []times
	}{
		{"a head in pieces", []step{
			request(get("/a")[:9]), request(get("/a")[9:]), response(ok(3)[:12]), response(ok(3)[12:]), response("abc"),
		}, []times{{1000, 3000, 5000}}},
		{"interim", []step{
			request(post("/a", 1)), response(goOn), request("x"), response(ok(0)),
		}, []times{{1000, 4000, 4000}}},
		{"pipelined", []step{
			request(get("/a") + get("/b")), response(ok(0)), response(ok(0)),
		}, []times{{1000, 2000, 2000}, {1000, 3000, 3000}}},
		{"chunked, its end not captured", []step{
			request(get("/a")), response(okChunked), response(chunk(xs(600))), response(lastChunk), request(get("/b")),
			response(ok(0)),
		}, []times{{1000, 2000, 4000}, {5000, 6000, 6000}}},
		{"until the end", []step{
			request(get("/a")), response(okClose), response(xs(600)), closing(),
		}, []times{{1000, 2000, 3000}}},
		{"aborted", []step{request(get("/a")), closing()}, []times{{1000, 0, 2000}}},
		{"aborted in the response", []step{
			request(get("/a")), response(ok(10)), response(xs(2)), closing(),
		}, []times{{1000, 2000, 4000}}},
		{"aborted in the head of the response", []step{
			request(get("/a")), response(ok(10)[:20]), closing(),
		}, []times{{1000, 2000, 3000}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				o := newObserver(10).take(newWire(role).play(test.steps...).messages...)
				var got []times
				for _, e := range o.exchanges {
					got = append(got, times{e.StartNs, e.ResponseNs, e.EndNs})
				}
				assert.Equal(t, test.want, got)
			})
		})
	}

	// Of a body whose last call was lost, the offsets tell that it was whole; when is not known.
	w := newWire(RoleServer).play(request(get("/a")), response(ok(10)+"x"), response(xs(9)), request(get("/b")), response(ok(0)))
	o := newObserver(10).take(w.messages[:2]...).take(w.messages[3:]...)
	assert.Equal(t, []string{"GET /a 200 0 10", "GET /b 200 0 0"}, o.lines())
	assert.Equal(t, uint64(2000), o.exchanges[0].EndNs)
}

// TestPairingBothEnds pairs the messages of the two ends of a connection that are seen by one receiver.
func TestPairingBothEnds(t *testing.T) {
	steps := []step{
		request(get("/a")), response(ok(1) + "x"), request(post("/b", 600)).byteFirst(), request(xs(600)), response(noContent),
		request(get("/c") + get("/d")).byteFirst(), response(ok(1) + "x" + ok(2) + "xx"), closing(),
	}
	o := newObserver(10)
	server, client := newWire(RoleServer), newWire(RoleClient)
	server.cookie, client.cookie = 11, 11
	for _, s := range steps {
		server.messages, client.messages = nil, nil
		server.play(s)
		client.play(s)
		for i := range client.messages {
			client.messages[i].Cookie = 12 // each end has its own; the sequence numbers are those of the connection
		}
		if s.client {
			o.take(client.messages...).take(server.messages...)
		} else {
			o.take(server.messages...).take(client.messages...)
		}
	}
	require.Len(t, o.exchanges, 8)
	byTarget := map[string][]Exchange{}
	for _, e := range o.exchanges {
		byTarget[e.Target] = append(byTarget[e.Target], e)
	}
	for target, exchanges := range byTarget {
		require.Len(t, exchanges, 2, target)
		assert.NotEqual(t, exchanges[0].Role, exchanges[1].Role)
		assert.Equal(t, exchanges[0].FlowID, exchanges[1].FlowID)
		assert.Equal(t, exchanges[0].RequestOffset, exchanges[1].RequestOffset, target)
		for _, e := range exchanges {
			assert.Equal(t, e.Role == RoleServer, e.ClientSeen)
		}
	}
	assert.Equal(t, uint32(len(get("/a"))+len(post("/b", 600))+600+len(get("/c"))), byTarget["/d"][0].RequestOffset)
	assert.Empty(t, o.clients)
	assert.Empty(t, o.connections)
	assert.Zero(t, o.dropped())
}

func TestPairingSelection(t *testing.T) {
	owner := &workload.Workload{}
	selected := false
	var exchanges []Exchange
	p := newPairing(10, func(head *messageHead, role Role) (*workload.Workload, bool) {
		assert.Equal(t, RoleClient, role)
		assert.Equal(t, uint16(40000), head.LocalPort)
		return owner, selected
	}, func(e *Exchange) { exchanges = append(exchanges, *e) })
	o := &observer{pairing: p}
	w := newWire(RoleClient).play(request(get("/a")), response(ok(0)), request(get("/b")), response(ok(0)))
	o.take(w.messages[:2]...)
	assert.Empty(t, p.clients)
	selected = true
	o.take(w.messages[2:]...)
	require.Len(t, exchanges, 1)
	assert.Equal(t, "/b", exchanges[0].Target)
	assert.Same(t, owner, exchanges[0].Owner)
}

// lossScripts are what messages are taken from. A request's target is the number that its response has as status.
func lossScripts() map[string][]step {
	scripts := map[string][]step{}
	alternate := func(name string, exchange func(code int) []step) {
		var steps []step
		for code := 210; code < 217; code++ { // all have bodies
			steps = append(steps, exchange(code)...)
		}
		scripts[name] = append(steps, closing())
	}
	target := func(code int) string { return "/" + strconv.Itoa(code) }
	chunked := func(code int) string { return strings.Replace(okChunked, "200", strconv.Itoa(code), 1) }
	alternate("GET", func(code int) []step {
		return []step{request(get(target(code))), response(status(code, 4) + "abcd")}
	})
	alternate("a byte first", func(code int) []step {
		first := request(get(target(code)))
		first.pieces = code % 4
		return []step{first, response(status(code, 4) + "abcd").byteFirst()}
	})
	alternate("HEAD", func(code int) []step {
		return []step{request("HEAD " + target(code) + " HTTP/1.1\r\n\r\n"), response(status(code, 5000))}
	})
	alternate("bodies in calls", func(code int) []step {
		return []step{
			request(post(target(code), 30)), request(xs(15)), request(xs(15)), response(status(code, 700)),
			response(xs(300)), response(xs(400)),
		}
	})
	alternate("bodies that look like heads", func(code int) []step {
		return []step{
			request(post(target(code), 2*len(fakeGet))), request(fakeGet), request(fakeGet),
			response(status(code, 2*len(fakeOK))), response(fakeOK), response(fakeOK),
		}
	})
	alternate("100", func(code int) []step {
		return []step{
			request(post(target(code), 30)), response(goOn), request(xs(30)), response(status(code, 4)), response("abcd"),
		}
	})
	alternate("chunked", func(code int) []step {
		return []step{
			request(postChunked(target(code))), request(chunk(xs(20))), request(chunk(xs(20)) + lastChunk),
			response(chunked(code)), response(chunk(xs(700))), response(chunk(xs(30)) + lastChunk),
		}
	})
	alternate("chunked, ends not captured", func(code int) []step {
		return []step{
			request(postChunked(target(code))), request(chunk(xs(700))), request(lastChunk),
			response(chunked(code)), response(chunk(xs(700))), response(lastChunk),
		}
	})
	alternate("long heads", func(code int) []step {
		return []step{request(long(get(target(code)))), response(long(status(code, 3)) + "abc")}
	})
	alternate("heads in pieces", func(code int) []step {
		all := post(target(code), 3) + "abc"
		return []step{request(all[:20]), request(all[20:]), response(status(code, 3)[:20]), response(status(code, 3)[20:] + "abc")}
	})
	return scripts
}

// pipelinedScripts have several requests under way at a time.
func pipelinedScripts() map[string][]step {
	requests := func(codes ...int) (steps []step) {
		for _, code := range codes {
			steps = append(steps, request(get("/"+strconv.Itoa(code))))
		}
		return steps
	}
	responses := func(codes ...int) (steps []step) {
		for _, code := range codes {
			steps = append(steps, response(status(code, 3)), response("abc"))
		}
		return steps
	}
	join := func(parts ...[]step) (steps []step) {
		for _, part := range parts {
			steps = append(steps, part...)
		}
		return append(steps, closing())
	}
	return map[string][]step{
		"all at once": join(requests(201, 202, 203, 204), responses(201, 202, 203, 204), requests(205), responses(205)),
		"a batch, then a batch": join(requests(201, 202), responses(201, 202), requests(203, 204), responses(203, 204),
			requests(205, 206), responses(205, 206)),
		"a window of two": join(requests(201, 202), responses(201), requests(203), responses(202), requests(204), responses(203),
			requests(205), responses(204), requests(206), responses(205), responses(206)),
		"a window of three": join(requests(201, 202, 203), responses(201), requests(204), responses(202), requests(205),
			responses(203), requests(206), responses(204), responses(205), responses(206)),
		"one at a time, then a batch": join(requests(201), responses(201), requests(202), responses(202), requests(203, 204, 205),
			responses(203), requests(206), responses(204, 205), requests(207), responses(206, 207)),
		"one at a time, then two": join(requests(201), responses(201), requests(202, 203), responses(202, 203), requests(204), responses(204)),
	}
}

// checkPaired checks that no request was paired with the response to another.
func checkPaired(t *testing.T, o *observer, context string) {
	t.Helper()
	seen := map[string]bool{}
	for i := range o.exchanges {
		e := &o.exchanges[i]
		code := strings.TrimPrefix(e.Target, "/")
		if _, err := strconv.Atoi(code); err != nil {
			continue // a part of a body, whose own head was lost
		}
		require.False(t, seen[code], "%s: %s twice", context, e.Target)
		seen[code] = true
		require.Empty(t, e.ErrorType, "%s: every response was whole: %v", context, o.lines())
		require.Equal(t, code, strconv.Itoa(e.Status), "%s: %v", context, o.lines())
	}
}

// TestPairingLoss takes each message, and each run of messages, from connections.
func TestPairingLoss(t *testing.T) {
	for name, steps := range lossScripts() {
		t.Run(name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				messages := newWire(role).play(steps...).messages
				complete := newObserver(10).take(messages...)
				require.Len(t, complete.exchanges, 7)
				for from := range messages {
					for to := from + 1; to <= len(messages); to++ {
						context := fmt.Sprintf("without %d to %d of %d", from, to, len(messages))
						o := newObserver(10).take(messages[:from]...).take(messages[to:]...)
						checkPaired(t, o, context)
						checkBounds(t, o.pairing)
						if name == "bodies that look like heads" {
							continue // parts of a body whose head was lost look like several requests at a time
						}
						// Two exchanges later all is right again.
						lostNs := messages[to-1].TimeNs
						var want, got []string
						begun := 0
						for i := range complete.exchanges {
							if e := &complete.exchanges[i]; e.StartNs > lostNs {
								if begun++; begun > 1 {
									want = append(want, line(e))
								}
							}
						}
						got = o.lines()
						got = got[max(0, len(got)-len(want)):]
						require.Equal(t, strings.Join(want, "\n"), strings.Join(got, "\n"), context)
						if name != "bodies that look like heads" {
							total := uint64(len(o.exchanges)) + o.dropped() + o.joined
							require.LessOrEqual(t, total, uint64(7), "%s: counted once: %v", context, o.drops)
							if to == from+1 && to < len(messages) && name != "long heads" {
								require.EqualValues(t, 7, total, "%s: %v", context, o.drops)
							}
						}
						// What is not told is counted, where something came later that shows it.
						absorbed := strings.HasPrefix(name, "chunked") && to > from+1 // in a body that does not tell its length
						if !absorbed && from > 0 && begun > 0 && len(o.exchanges) < len(complete.exchanges) {
							require.NotZero(t, o.dropped(), context)
						}
						if to == from+1 && begun > 0 {
							require.GreaterOrEqual(t, len(o.exchanges)+2, len(complete.exchanges), "%s: %v", context, o.lines())
						}
					}
				}
			})
		})
	}
}

func TestPairingLossPipelined(t *testing.T) {
	for name, steps := range pipelinedScripts() {
		t.Run(name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				messages := newWire(role).play(steps...).messages
				complete := newObserver(10).take(messages...)
				checkPaired(t, complete, "all")
				require.Zero(t, complete.dropped())
				for i := 1; i < len(messages); i++ { // without the first, nothing tells what was before
					context := fmt.Sprintf("without %d of %d", i, len(messages))
					o := newObserver(10).take(messages[:i]...).take(messages[i+1:]...)
					checkPaired(t, o, context)
				}
			})
		})
	}
}

// TestPairingRecovers is about connections of which so much was lost that they seem to pipeline.
func TestPairingRecovers(t *testing.T) {
	bothEnds(t, func(t *testing.T, role Role) {
		w := newWire(role)
		for code := range 100 {
			w.play(request(get("/"+strconv.Itoa(200+code))), response(status(200+code, 0)))
		}
		messages := []told{w.messages[0], w.messages[2], w.messages[4]} // three requests, no response
		messages = append(messages, w.messages[5:]...)
		o := newObserver(10).take(messages...)
		checkPaired(t, o, "")
		require.NotEmpty(t, o.exchanges)
		assert.Greater(t, len(o.exchanges), 100-3-alternations-3)
		assert.Equal(t, "GET /299 299 0 0", o.lines()[len(o.exchanges)-1])
	})
}

// TestPairingRecoversBatches is about clients that send several requests, wait for all responses, and send the next.
func TestPairingRecoversBatches(t *testing.T) {
	for name, sizes := range map[string][]int{
		"of several sizes": {3, 2, 4, 1, 2, 3, 4, 2, 1, 3, 2, 4},
		"of one size":      slices.Repeat([]int{3}, alternations+8),
	} {
		t.Run(name, func(t *testing.T) {
			bothEnds(t, func(t *testing.T, role Role) {
				w := newWire(role)
				var last string
				number := 0
				for _, size := range sizes {
					for i := range size {
						w.play(request(get("/" + strconv.Itoa(200+number+i))))
					}
					for i := range size {
						w.play(response(status(200+number+i, 0)))
						last = fmt.Sprintf("GET /%d %[1]d 0 0", 200+number+i)
					}
					number += size
				}
				messages := slices.Delete(slices.Clone(w.messages), 3, 5) // two responses of the first three
				o := newObserver(10).take(messages...)
				checkPaired(t, o, "")
				require.NotEmpty(t, o.exchanges)
				assert.Equal(t, last, o.lines()[len(o.exchanges)-1])
			})
		})
	}
}

// TestPairingOverlappingBatches is about clients that send the next requests before they have the last responses: what was
// lost once makes the responses anybody's.
func TestPairingOverlappingBatches(t *testing.T) {
	bothEnds(t, func(t *testing.T, role Role) {
		w := newWire(role)
		asked, answered := 0, 0
		ask := func(size int) {
			for range size {
				w.play(request(get("/" + strconv.Itoa(200+asked))))
				asked++
			}
		}
		ask(2)
		for i := range 100 {
			ask(1 + i%3)
			for range 1 + (i+2)%3 {
				w.play(response(status(200+answered, 0)))
				answered++
			}
		}
		for lost := range 12 {
			if w.messages[lost].message.Direction == w.messages[0].message.Direction {
				continue // of requests
			}
			o := newObserver(10).take(slices.Delete(slices.Clone(w.messages), lost, lost+1)...)
			checkPaired(t, o, fmt.Sprintf("without %d", lost))
		}
	})
}

func TestPairingTooManyPending(t *testing.T) {
	bothEnds(t, func(t *testing.T, role Role) {
		w := newWire(role)
		for range maxPending + 1 {
			w.play(request(get("/a")))
		}
		for range maxPending + 1 {
			w.play(response(ok(0)))
		}
		o := newObserver(10).take(w.messages[:maxPending]...)
		checkBounds(t, o.pairing)
		o.take(w.messages[maxPending:]...).take(w.play(closing()).messages[len(w.messages)-1])
		assert.Empty(t, o.exchanges, "no aborted requests are made up")
		assert.EqualValues(t, maxPending+1, o.drops[dropPendingFull])
		assert.Empty(t, o.connections)
		assert.Empty(t, o.clients)
	})
}

func TestPairingTableFull(t *testing.T) {
	o := newObserver(2)
	var ends []told
	for cookie := range uint64(3) {
		w := newWire(RoleServer)
		w.cookie = cookie + 1
		w.play(request(get("/a")), response(ok(0)), closing())
		o.take(w.messages[:2]...)
		ends = append(ends, w.messages[2])
	}
	assert.Len(t, o.exchanges, 2)
	assert.Len(t, o.connections, 2)
	assert.EqualValues(t, 2, o.drops[dropTableFull])
	o.take(ends...)
	assert.Empty(t, o.connections)
	o.take(newWire(RoleServer).play(request(get("/a")), response(ok(0))).messages...)
	assert.Len(t, o.exchanges, 3, "there is room again")
}

func TestPairingSweep(t *testing.T) {
	bothEnds(t, func(t *testing.T, role Role) {
		w := newWire(role).play(request(get("/a")), response(ok(0)), request(get("/b")), response(ok(0)))
		o := newObserver(10).take(w.messages[:2]...)
		o.sweep(0)
		o.sweep(2000 + uint64(idleConnection))
		assert.Len(t, o.connections, 1)
		o.sweep(2001 + uint64(idleConnection))
		assert.Empty(t, o.connections)

		o.take(w.messages[2])
		o.sweep(3001 + uint64(idleConnection))
		assert.Len(t, o.connections, 1, "a request waits")
		o.take(w.messages[3])
		assert.Len(t, o.exchanges, 2)

		o.take(w.play(request(get("/c"))).messages[4])
		o.sweep(w.nowNs + 1 + uint64(idleRequest))
		assert.Empty(t, o.connections, "its end was lost")
		assert.Empty(t, o.clients)
		assert.EqualValues(t, 1, o.drops[dropGap])
		assert.Less(t, idleConnection, 10*time.Minute)
	})
}

// TestPairingIgnores is about messages that must not change anything.
func TestPairingIgnores(t *testing.T) {
	o := newObserver(10)
	w := newWire(RoleServer).play(request(get("/a")), response(ok(0)))
	o.take(told{message: message{Cookie: 5, Kind: uint8(bpfMessageKindMESSAGE_END)}})
	o.take(told{message: message{Cookie: 5, Kind: uint8(bpfMessageKindMESSAGE_DATA), Length: 5}})
	o.take(told{message: message{Cookie: 5, Kind: uint8(bpfMessageKindMESSAGE_HEAD), Length: 5}})
	o.take(told{message: message{Cookie: 5, Kind: uint8(bpfMessageKindMESSAGE_HEAD), Length: 5}, head: w.describe(), data: []byte("hello")})
	assert.Empty(t, o.connections)
	o.take(w.messages[0])
	o.take(told{message: message{Cookie: 11, Kind: 200, Length: 5}})
	o.take(told{message: message{Cookie: 11, Kind: uint8(bpfMessageKindMESSAGE_DATA)}})
	o.take(w.messages[1])
	assert.Equal(t, []string{"GET /a 200 0 0"}, o.lines())
	assert.Zero(t, o.dropped())
}

// script makes random exchanges, and the calls that move them.
type script struct {
	random *rand.Rand
	steps  []step
	want   []string
	number int
	// chunked scripts have one exchange at a time. Where several are under way, an end that cannot be seen leaves a doubt,
	// and they are not told of.
	chunked bool
}

// calls cuts a head and its body into calls as programs do. A head is told of from its first call on if that has eight
// bytes at least.
func (s *script) calls(client bool, head, body string, fresh bool) {
	from := len(s.steps)
	add := func(text string) {
		if text != "" {
			s.steps = append(s.steps, step{client: client, text: text})
		}
	}
	switch s.random.IntN(3) {
	case 0:
		add(head + body)
	case 1:
		add(head)
		for body != "" {
			size := 1 + s.random.IntN(len(body))
			add(body[:size])
			body = body[size:]
		}
	case 2:
		first := 9 + s.random.IntN(len(head)-10)
		second := first + s.random.IntN(len(head)-first)
		size := s.random.IntN(len(body) + 1)
		add(head[:first])
		add(head[first:second])
		add(head[second:] + body[:size])
		add(body[size:])
	}
	if !fresh && s.random.IntN(3) == 0 {
		s.steps[from].pieces = 1 + s.random.IntN(6)
	}
	for i := from; i < len(s.steps); i++ {
		if s.random.IntN(4) == 0 {
			s.steps[i].again = []int{s.random.IntN(len(s.steps[i].text))}
		}
	}
}

// body gives a random body, with its head lines and its size.
func (s *script) body(chunked bool) (lines, body, size string) {
	texts := []string{"", "x", fakeGet, fakeOK, xs(100), xs(600), xs(9000), lastChunk, "\r\n\r\n"}
	text := texts[s.random.IntN(len(texts))]
	if !chunked {
		return "Content-Length: " + strconv.Itoa(len(text)) + "\r\n", text, strconv.Itoa(len(text))
	}
	if text == lastChunk {
		text = "x"
	}
	size = "~" + strconv.Itoa(len(text))
	if text != "" {
		body = chunk(text)
	}
	body += "0\r\n"
	if s.random.IntN(4) == 0 {
		body += "A: b\r\n"
	}
	return "Transfer-Encoding: chunked\r\n", body + "\r\n", size
}

// exchange gives the heads and bodies of a random exchange, and notes what is expected.
func (s *script) exchange() (requestHead, requestBody, responseHead, responseBody string) {
	s.number++
	target := "/" + strconv.Itoa(s.number)
	method := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}[s.random.IntN(6)]
	requestSize, responseSize := "0", "0"
	requestHead = method + " " + target + " HTTP/1.1\r\nHost: example.com\r\n"
	if method == "POST" || method == "PUT" {
		var lines string
		lines, requestBody, requestSize = s.body(s.chunked && s.random.IntN(2) == 0)
		requestHead += lines
	}
	code := []int{200, 404, 500, 204, 304}[s.random.IntN(5)]
	responseHead = "HTTP/1.1 " + strconv.Itoa(code) + " Text\r\n"
	lines, body, size := s.body(s.chunked && s.random.IntN(2) == 0)
	responseHead += lines
	if method != "HEAD" && code != 204 && code != 304 {
		responseBody, responseSize = body, size
	}
	s.want = append(s.want, fmt.Sprintf("%s %s %d %s %s", method, target, code, requestSize, responseSize))
	return requestHead + "\r\n", requestBody, responseHead + "\r\n", responseBody
}

func newScript(random *rand.Rand) *script {
	s := &script{random: random, chunked: random.IntN(2) == 0}
	for round := range 2 + random.IntN(5) {
		if s.chunked || random.IntN(3) > 0 {
			head, body, answerHead, answerBody := s.exchange()
			s.calls(true, head, body, round == 0)
			if random.IntN(4) == 0 {
				s.steps = append(s.steps, response(goOn))
			}
			s.calls(false, answerHead, answerBody, false)
			continue
		}
		// Several at a time, each in calls of its own.
		var answers [][2]string
		for i := range 2 + random.IntN(3) {
			head, body, answerHead, answerBody := s.exchange()
			s.calls(true, head, body, round == 0 && i == 0)
			answers = append(answers, [2]string{answerHead, answerBody})
		}
		for _, answer := range answers {
			s.calls(false, answer[0], answer[1], false)
		}
	}
	s.steps = append(s.steps, closing())
	return s
}

// checkScript checks that what is told of a random script is what was sent, on both ends; and that nothing is paired
// wrongly when messages are lost.
func checkScript(t *testing.T, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	s := newScript(random)
	for _, role := range []Role{RoleServer, RoleClient} {
		w := newWire(role)
		w.headBytes = 4096
		if random.IntN(2) == 0 {
			w.headBytes = 128 + random.IntN(1000)
		}
		w.noShortTails = random.IntN(2) == 0
		start := []uint32{0, math.MaxUint32 - uint32(random.IntN(5000))}[random.IntN(2)]
		w.offsets = [2]uint32{start, start}
		want := s.want
		if start != 0 {
			w.play(request(get("/before")), response(ok(0)))
			want = append([]string{"GET /before 200 0 0"}, want...)
		}
		messages := w.play(s.steps...).messages
		o := newObserver(1).take(messages...)
		checkLines(t, want, o.lines(), "seed %d, role %d", seed, role)
		require.Empty(t, o.connections)
		require.Empty(t, o.clients)
		if !s.chunked { // a part of a chunked body may be taken for another response, to nothing that was asked
			require.Zero(t, o.dropped(), "seed %d, role %d: %v", seed, role, o.drops)
		}

		lost := newObserver(1)
		for i := range messages {
			if random.IntN(10) > 0 {
				lost.take(messages[i])
			}
			checkBounds(t, lost.pairing)
		}
	}
}

func TestPairingRandomScripts(t *testing.T) {
	for seed := range uint64(1000) {
		checkScript(t, seed)
		if t.Failed() {
			return
		}
	}
}

// FuzzPairing gives a pairing the exchanges of a random script, and then messages that are made of the input's bytes.
func FuzzPairing(f *testing.F) {
	f.Add(uint64(1), []byte{})
	f.Add(uint64(2), []byte("\x01\x01\x00\x00\x00\x20\x20GET / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n"))
	f.Add(uint64(3), []byte("\x01\x02\x00\x00\x00\xff\x10HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"))
	f.Add(uint64(4), []byte("\x01\x01\x00\x00\x00\x35\x35POST /v1/embeddings HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"+
		"\x01\x01\x01\x00\x00\x2b\x2bHTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"m\""+
		"\x01\x02\x01\x08\x00\x5f\x03}}}________"))
	f.Fuzz(func(t *testing.T, seed uint64, input []byte) {
		checkScript(t, seed)
		random := rand.New(rand.NewPCG(seed, 2))
		o := newObserver(3)
		o.genAI = true
		head := newWire(RoleServer).describe()
		offsets := [2]uint32{}
		for len(input) > 8 {
			m := message{
				TimeNs: random.Uint64() >> random.IntN(64), Cookie: uint64(input[0] & 3), Kind: input[1] & 3, Direction: input[2],
				Length: uint32(input[5]), Tail: random.Uint64(), Error: int32(random.Uint32()),
			}
			if input[3]&1 != 0 {
				m.Length = random.Uint32() >> random.IntN(32)
			}
			m.Offset = offsets[m.Direction&1] + uint32(int8(input[4]))
			if input[3]&2 != 0 {
				m.Offset = random.Uint32()
			}
			offsets[m.Direction&1] = m.Offset + m.Length
			if input[3]&4 != 0 {
				m.Tail = 0x0a0d0a0d300a0d00
			}
			if input[3]&8 != 0 {
				m.Flags = uint8(bpfMessageFlagMESSAGE_LAST_BYTES)
			}
			captured := min(int(input[6]), len(input)-7)
			data := input[7 : 7+captured]
			input = input[7+captured:]
			if captured == 0 {
				o.take(told{message: m})
			} else {
				m.Captured = uint16(captured)
				o.take(told{message: m, head: head, data: data})
			}
			checkBounds(t, o.pairing)
			checkBodies(t, o.pairing)
		}
		for _, e := range o.exchanges {
			require.GreaterOrEqual(t, e.RequestBodyBytes, int64(-1))
			require.GreaterOrEqual(t, e.ResponseBodyBytes, int64(-1))
		}
		o.sweep(math.MaxUint64)
		checkBodies(t, o.pairing)
	})
}

// checkBodies finds as many bodies as are counted, each of a request that waits.
func checkBodies(t *testing.T, p *pairing) {
	t.Helper()
	kept := 0
	for _, c := range p.connections {
		if c.bodies != nil {
			kept++
			require.NotEmpty(t, c.pending)
		}
	}
	require.Equal(t, kept, p.kept)
}

// keepAlive gives the messages of one exchange on a connection that goes on.
func keepAlive() [2]told {
	text := "GET /cart/items?id=1234567890 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
		"Accept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
	answer := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sun, 22 Nov 2026 18:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello"
	return [2]told(newWire(RoleServer).play(request(text), response(answer)).messages)
}

func TestPairingAllocations(t *testing.T) {
	exchange := keepAlive()
	count := 0
	p := newPairing(10, func(*messageHead, Role) (*workload.Workload, bool) { return nil, true }, func(*Exchange) { count++ })
	one := func() {
		for i := range exchange {
			p.handle(&exchange[i].message, exchange[i].head, exchange[i].data)
			exchange[i].Offset += exchange[i].Length
		}
	}
	one()
	assert.LessOrEqual(t, testing.AllocsPerRun(1000, one), 1.0, "the target")
	assert.Equal(t, 1002, count)
	assert.Zero(t, p.drops)
}

func BenchmarkPairing(b *testing.B) {
	exchange := keepAlive()
	p := newPairing(10, func(*messageHead, Role) (*workload.Workload, bool) { return nil, true }, func(*Exchange) {})
	b.ReportAllocs()
	for b.Loop() {
		for i := range exchange {
			p.handle(&exchange[i].message, exchange[i].head, exchange[i].data)
			exchange[i].Offset += exchange[i].Length
		}
	}
}
