package http2_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2/http2test"
)

// log writes down what a decoder finds.
type log struct{ lines []string }

var named = []struct {
	name  string
	field http2.Field
}{
	{":method", http2.FieldMethod}, {":path", http2.FieldPath}, {":authority", http2.FieldAuthority},
	{":scheme", http2.FieldScheme}, {":status", http2.FieldStatus}, {":protocol", http2.FieldProtocol},
	{"host", http2.FieldHost}, {"content-type", http2.FieldContentType}, {"content-length", http2.FieldContentLength},
	{"user-agent", http2.FieldUserAgent}, {"traceparent", http2.FieldTraceParent}, {"tracestate", http2.FieldTraceState},
	{"b3", http2.FieldB3}, {"x-b3-traceid", http2.FieldB3TraceID}, {"x-b3-spanid", http2.FieldB3SpanID},
	{"x-b3-parentspanid", http2.FieldB3ParentSpanID}, {"x-b3-sampled", http2.FieldB3Sampled},
	{"x-b3-flags", http2.FieldB3Flags}, {"grpc-trace-bin", http2.FieldTraceBin}, {"x-request-id", http2.FieldRequestID},
	{"grpc-status", http2.FieldGRPCStatus},
}

func (l *log) say(format string, arguments ...any) {
	l.lines = append(l.lines, fmt.Sprintf(format, arguments...))
}

func (l *log) Headers(h *http2.Headers) {
	line := fmt.Sprintf("headers %d", h.Stream)
	if h.EndStream {
		line += " end"
	}
	if h.Unknown {
		line += " unknown"
	}
	for _, n := range named {
		if h.Has(n.field) {
			line += fmt.Sprintf(" %s=%s", n.name, h.Value(n.field))
		}
	}
	l.say("%s %d-%d", line, h.StartNs, h.EndNs)
}

func (l *log) Data(stream, length uint32, end bool, atNs uint64) {
	l.say("data %d: %d %t %d", stream, length, end, atNs)
}
func (l *log) Reset(stream, code uint32, atNs uint64) { l.say("reset %d: %d %d", stream, code, atNs) }
func (l *log) GoAway(last, code uint32, atNs uint64)  { l.say("goaway %d: %d %d", last, code, atNs) }
func (l *log) TableSize(bytes uint32)                 { l.say("table %d", bytes) }
func (l *log) Preface()                               { l.say("preface") }
func (l *log) Lost()                                  { l.say("lost") }

// writer makes frames.
type writer struct {
	bytes.Buffer
	*xhttp2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
}

func newWriter() *writer {
	w := &writer{}
	w.Framer = xhttp2.NewFramer(&w.Buffer, nil)
	w.AllowIllegalWrites = true
	w.encoder = hpack.NewEncoder(&w.block)
	return w
}

// fields encodes a header block: name, value, name, value.
func (w *writer) fields(namesAndValues ...string) []byte {
	w.block.Reset()
	for i := 0; i < len(namesAndValues); i += 2 {
		_ = w.encoder.WriteField(hpack.HeaderField{Name: namesAndValues[i], Value: namesAndValues[i+1]})
	}
	return bytes.Clone(w.block.Bytes())
}

func (w *writer) headers(stream uint32, end bool, namesAndValues ...string) {
	_ = w.WriteHeaders(xhttp2.HeadersFrameParam{
		StreamID: stream, BlockFragment: w.fields(namesAndValues...), EndStream: end, EndHeaders: true,
	})
}

func (w *writer) raw(kind xhttp2.FrameType, flags xhttp2.Flags, stream uint32, payload string) {
	_ = w.WriteRawFrame(kind, flags, stream, []byte(payload))
}

func TestFrames(t *testing.T) {
	request := []string{":method", "GET", ":scheme", "http", ":path", "/a", "cookie", "secret"}
	get := ":method=GET :path=/a :scheme=http"
	for name, test := range map[string]struct {
		write func(w *writer)
		want  []string
		fails string
	}{
		"headers": {
			write: func(w *writer) { w.headers(1, true, request...) },
			want:  []string{"headers 1 end :method=GET :path=/a :scheme=http 1-1"},
		},
		"the first of two counts": {
			write: func(w *writer) { w.headers(1, false, "x-request-id", "a", "x-request-id", "b") },
			want:  []string{"headers 1 x-request-id=a 1-1"},
		},
		"padding and priority": {
			write: func(w *writer) {
				_ = w.WriteHeaders(xhttp2.HeadersFrameParam{
					StreamID: 3, BlockFragment: w.fields(request...), EndHeaders: true, PadLength: 7,
					Priority: xhttp2.PriorityParam{StreamDep: 1, Weight: 5},
				})
				_ = w.WriteDataPadded(3, true, []byte("hello"), make([]byte, 9))
			},
			want: []string{"headers 3 " + get + " 1-1", "data 3: 5 true 1"},
		},
		"continuation": {
			write: func(w *writer) {
				block := w.fields(request...)
				_ = w.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:1], EndStream: true})
				_ = w.WriteContinuation(1, false, block[1:3])
				_ = w.WriteContinuation(1, false, nil)
				_ = w.WriteContinuation(1, true, block[3:])
				w.headers(3, false, request...)
			},
			want: []string{"headers 1 end " + get + " 1-1", "headers 3 " + get + " 1-1"},
		},
		"control": {
			write: func(w *writer) {
				_ = w.WriteSettings(
					xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 1 << 20},
					xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 77},
				)
				_ = w.WriteSettingsAck()
				_ = w.WritePing(false, [8]byte{1})
				_ = w.WriteWindowUpdate(0, 5)
				_ = w.WriteWindowUpdate(1, 5)
				_ = w.WritePriority(1, xhttp2.PriorityParam{})
				_ = w.WriteRSTStream(1, xhttp2.ErrCodeCancel)
				w.raw(0xfe, 0xff, 0, "anything")
				_ = w.WriteGoAway(9, xhttp2.ErrCodeEnhanceYourCalm, []byte("why"))
			},
			want: []string{"table 77", "reset 1: 8 1", "goaway 9: 11 1"},
		},
		"a promise is read for the table": {
			write: func(w *writer) {
				_ = w.WritePushPromise(xhttp2.PushPromiseParam{
					StreamID: 1, PromiseID: 2, BlockFragment: w.fields(request...), EndHeaders: true, PadLength: 3,
				})
				w.headers(1, false, ":path", "/a")
			},
			want: []string{"headers 1 :path=/a 1-1"},
		},
		"empty data": {
			write: func(w *writer) { _ = w.WriteData(1, true, nil) },
			want:  []string{"data 1: 0 true 1"},
		},
		"size updates": {
			write: func(w *writer) {
				w.headers(1, false, "x-request-id", "a")
				w.encoder.SetMaxDynamicTableSize(0)
				w.encoder.SetMaxDynamicTableSize(4096)
				w.headers(3, false, "x-request-id", "a")
				w.headers(5, false, "x-request-id", "a")
			},
			want: []string{
				"headers 1 x-request-id=a 1-1", "headers 3 x-request-id=a 1-1", "headers 5 x-request-id=a 1-1",
			},
		},
		"an index that is not there is unknown": {
			write: func(w *writer) {
				w.raw(xhttp2.FrameHeaders, xhttp2.FlagHeadersEndHeaders, 1, "\x82\xbe\x7e\x01a\x0f\x2f\x01b\x84")
			},
			want: []string{"headers 1 unknown :method=GET :path=/ 1-1"},
		},
		"an unknown name that is put into the table stays unknown": {
			write: func(w *writer) {
				w.raw(xhttp2.FrameHeaders, xhttp2.FlagHeadersEndHeaders, 1, "\x7e\x01a")
				w.raw(xhttp2.FrameHeaders, xhttp2.FlagHeadersEndHeaders, 3, "\xbe")
			},
			want: []string{"headers 1 unknown 1-1", "headers 3 unknown 1-1"},
		},
		"data without a stream":      {write: func(w *writer) { w.raw(0, 0, 0, "a") }, fails: "wrong stream"},
		"headers without a stream":   {write: func(w *writer) { w.raw(1, 4, 0, "\x82") }, fails: "wrong stream"},
		"settings of a stream":       {write: func(w *writer) { w.raw(4, 0, 1, "") }, fails: "wrong stream"},
		"settings of a wrong length": {write: func(w *writer) { w.raw(4, 0, 0, "abc") }, fails: "wrong length"},
		"an ack with settings":       {write: func(w *writer) { w.raw(4, 1, 0, "abcdef") }, fails: "wrong length"},
		"a short reset":              {write: func(w *writer) { w.raw(3, 0, 1, "abc") }, fails: "wrong length"},
		"a short goaway":             {write: func(w *writer) { w.raw(7, 0, 0, "abc") }, fails: "wrong length"},
		"a short ping":               {write: func(w *writer) { w.raw(6, 0, 0, "abc") }, fails: "wrong length"},
		"a short window update":      {write: func(w *writer) { w.raw(8, 0, 0, "abc") }, fails: "wrong length"},
		"a short priority":           {write: func(w *writer) { w.raw(2, 0, 1, "abc") }, fails: "wrong length"},
		"headers without a priority": {write: func(w *writer) { w.raw(1, 0x24, 1, "abc") }, fails: "wrong length"},
		"data without its padding":   {write: func(w *writer) { w.raw(0, 8, 1, "") }, fails: "wrong length"},
		"too much padding of data":   {write: func(w *writer) { w.raw(0, 8, 1, "\x02a") }, fails: "padding"},
		"too much padding":           {write: func(w *writer) { w.raw(1, 0xc, 1, "\x02a") }, fails: "padding"},
		"a continuation of nothing": {
			write: func(w *writer) { w.raw(6, 0, 0, "12345678"); w.raw(9, 4, 1, "\x82") }, fails: "continues nothing",
		},
		"a continuation of another stream": {
			write: func(w *writer) { w.raw(1, 0, 1, "\x82"); w.raw(9, 4, 3, "\x82") }, fails: "continues nothing",
		},
		"a frame within a block": {
			write: func(w *writer) { w.raw(1, 0, 1, "\x82"); w.raw(0, 0, 1, "a") }, fails: "within a header block",
		},
		"index 0":              {write: func(w *writer) { w.raw(1, 4, 1, "\x80") }, fails: "index 0"},
		"a cut index":          {write: func(w *writer) { w.raw(1, 4, 1, "\xff") }, fails: "not whole"},
		"a cut literal":        {write: func(w *writer) { w.raw(1, 4, 1, "\x44") }, fails: "not whole"},
		"a cut value":          {write: func(w *writer) { w.raw(1, 4, 1, "\x44\x05/") }, fails: "not whole"},
		"an integer too large": {write: func(w *writer) { w.raw(1, 4, 1, "\xff\xff\xff\xff\xff\xff\xff\x01") }, fails: "too large"},
		"a bad Huffman code":   {write: func(w *writer) { w.raw(1, 4, 1, "\x44\x84\xff\xff\xff\xff") }, fails: "Huffman"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter()
			test.write(w)
			// At once, and byte by byte.
			for _, step := range []int{w.Len(), 1, 2, 7} {
				compactor, found := http2test.Compactor{NoPreface: true}, &log{}
				decoder := http2.Decoder{Handler: found}
				var err error
				for rest := w.Bytes(); len(rest) > 0; {
					took := min(step, len(rest))
					call := compactor.Call(rest[:took], 1)
					err = decoder.Call(&call)
					rest = rest[took:]
				}
				if test.fails != "" {
					require.ErrorContains(t, err, test.fails)
					continue
				}
				require.NoError(t, err)
				assert.Equal(t, test.want, found.lines, "in calls of %d bytes", step)
			}
		})
	}
}

func TestStaticTable(t *testing.T) {
	for index := byte(1); index <= 61; index++ {
		reference, err := hpack.NewDecoder(4096, nil).DecodeFull([]byte{0x80 | index})
		require.NoError(t, err)
		want := "headers 1"
		for _, n := range named {
			if n.name == reference[0].Name {
				want += fmt.Sprintf(" %s=%s", n.name, reference[0].Value)
			}
		}
		w, found := newWriter(), &log{}
		w.raw(1, 4, 1, string([]byte{0x80 | index}))
		call := (&http2test.Compactor{NoPreface: true}).Call(w.Bytes(), 1)
		require.NoError(t, (&http2.Decoder{Handler: found}).Call(&call))
		assert.Equal(t, []string{want + " 1-1"}, found.lines)
	}
}

func TestLargeBlock(t *testing.T) {
	w, found := newWriter(), &log{}
	w.headers(1, false, ":path", "/a", "x-a", strings.Repeat("~", 60_000), "x-b", strings.Repeat("~", 60_000), "b3", "0")
	w.headers(3, false, ":path", "/a", "b3", "0")
	w.headers(5, false, ":path", "/b")
	w.headers(7, false, ":path", "/b")
	for _, step := range []int{w.Len(), 1000} {
		*found = log{}
		decoder, compactor := http2.Decoder{Handler: found}, http2test.Compactor{NoPreface: true}
		for rest := w.Bytes(); len(rest) > 0; {
			took := min(step, len(rest))
			call := compactor.Call(rest[:took], 1)
			require.NoError(t, decoder.Call(&call))
			rest = rest[took:]
		}
		assert.Equal(t, []string{
			"headers 1 unknown :path=/a 1-1", "headers 3 unknown 1-1", "headers 5 :path=/b 1-1", "headers 7 :path=/b 1-1",
		}, found.lines)
		assert.EqualValues(t, 1, decoder.TooLarge)
	}
}

// calls cuts what a writer wrote at the places, and tells of the calls at times 1, 2, 3.
func (w *writer) calls(compactor *http2test.Compactor, at ...int) (calls []http2.Call) {
	from := 0
	for i, to := range append(at, w.Len()) {
		calls = append(calls, compactor.Call(w.Bytes()[from:to], uint64(i+1)))
		from = to
	}
	return calls
}

func TestLosses(t *testing.T) {
	response := func() *writer {
		w := newWriter()
		w.headers(1, false, ":status", "200", "x-request-id", "a") // 9 and some bytes
		_ = w.WriteDataPadded(1, false, make([]byte, 90), make([]byte, 9))
		_ = w.WritePing(false, [8]byte{})
		w.headers(3, true, ":status", "200", "x-request-id", "a")
		w.headers(5, true, ":status", "200", "x-request-id", "a")
		return w
	}
	first := func() int {
		w := newWriter()
		w.headers(1, false, ":status", "200", "x-request-id", "a")
		return w.Len()
	}()
	const data, ping = 9 + 1 + 90 + 9, 9 + 8
	const known, reused = ":status=200 x-request-id=a", "headers 3 end :status=200 x-request-id=a 4-4"
	for name, test := range map[string]struct {
		at   []int
		play func(calls []http2.Call) []http2.Call
		want []string
	}{
		"within data": {
			at:   []int{first + 12, first + 20, first + 30},
			play: func(c []http2.Call) []http2.Call { return []http2.Call{c[0], c[1], c[3]} },
			want: []string{"headers 1 " + known + " 1-1", "data 1: 90 false 4", reused, "headers 5 end " + known + " 4-4"},
		},
		"to the end of data": {
			at:   []int{first + 12, first + 20, first + data},
			play: func(c []http2.Call) []http2.Call { return []http2.Call{c[0], c[1], c[3]} },
			want: []string{"headers 1 " + known + " 1-1", "data 1: 90 false 2", reused, "headers 5 end " + known + " 4-4"},
		},
		"the length of the padding": {
			at:   []int{first + 9, first + 20, first + 30},
			play: func(c []http2.Call) []http2.Call { return []http2.Call{c[0], c[2], c[3]} },
			want: []string{
				"headers 1 " + known + " 1-1", "lost", "headers 3 end unknown :status=200 4-4", "headers 5 end unknown :status=200 4-4",
			},
		},
		"within a ping": {
			at:   []int{first + data + 10, first + data + 12, first + data + 13},
			play: func(c []http2.Call) []http2.Call { return []http2.Call{c[0], c[2], c[3]} },
			want: []string{"headers 1 " + known + " 1-1", "data 1: 90 false 1", reused, "headers 5 end " + known + " 4-4"},
		},
		"within a header": {
			at:   []int{first + data + 3, first + data + 5, first + data + ping},
			play: func(c []http2.Call) []http2.Call { return []http2.Call{c[0], c[2], c[3]} },
			want: []string{
				"headers 1 " + known + " 1-1", "data 1: 90 false 1", "lost", "lost",
				"headers 3 end unknown :status=200 4-4", "headers 5 end unknown :status=200 4-4",
			},
		},
		"within a header block": {
			at:   []int{10, first, first + data},
			play: func(c []http2.Call) []http2.Call { return []http2.Call{c[0], c[2], c[3]} },
			want: []string{
				"headers 1 unknown :status=200 1-1", "lost", "data 1: 90 false 3",
				"headers 3 end unknown :status=200 4-4", "headers 5 end unknown :status=200 4-4",
			},
		},
		"truncated": {
			at: []int{first, first + data, first + data + ping},
			play: func(c []http2.Call) []http2.Call {
				c[0].Captured, c[0].Truncated = c[0].Captured[:10], true
				return c
			},
			want: []string{
				"headers 1 unknown :status=200 1-1", "lost", "data 1: 90 false 2",
				"headers 3 end unknown :status=200 4-4", "headers 5 end unknown :status=200 4-4",
			},
		},
		"truncated within a ping": {
			at: []int{first, first + data, first + data + ping},
			play: func(c []http2.Call) []http2.Call {
				c[2].Captured, c[2].Truncated = c[2].Captured[:10], true
				return c
			},
			want: []string{"headers 1 " + known + " 1-1", "data 1: 90 false 2", reused, "headers 5 end " + known + " 4-4"},
		},
		"told again": {
			at: []int{first, first + data, first + data + ping},
			play: func(c []http2.Call) []http2.Call {
				again := c[1]
				again.Offset, again.Length, again.FrameLeft, again.Captured = again.Offset+20, again.Length-20, data-20, nil
				return []http2.Call{c[0], c[1], again, c[2], c[3]}
			},
			want: []string{"headers 1 " + known + " 1-1", "data 1: 90 false 2", reused, "headers 5 end " + known + " 4-4"},
		},
		"less was moved than was told": {
			at:   []int{first, first + data, first + data + ping},
			play: func(c []http2.Call) []http2.Call { c[0].Length += 50; return c },
			want: []string{
				"headers 1 " + known + " 1-1", "lost", "lost", "data 1: 90 false 2",
				"headers 3 end unknown :status=200 4-4", "headers 5 end unknown :status=200 4-4",
			},
		},
		"the kernel side sees the stream elsewhere": {
			at:   []int{first, first + 20, first + 30},
			play: func(c []http2.Call) []http2.Call { c[2].FrameLeft--; return c },
			// What it says then is not so either, but does not fit.
			want: []string{"headers 1 " + known + " 1-1", "lost", "lost", "headers 3 end unknown :status=200 4-4",
				"headers 5 end unknown :status=200 4-4"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := &log{}
			decoder := http2.Decoder{Handler: found}
			for _, call := range test.play(response().calls(&http2test.Compactor{NoPreface: true}, test.at...)) {
				require.NoError(t, decoder.Call(&call))
			}
			assert.Equal(t, test.want, found.lines)
		})
	}
}

func TestPreface(t *testing.T) {
	w := newWriter()
	w.WriteString(http2test.Preface)
	_ = w.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 7})
	w.headers(1, false, ":method", "GET")
	_ = w.WriteData(1, false, make([]byte, 100))
	rest := []string{"table 7", "headers 1 :method=GET 1-1", "data 1: 100 false 1"}
	told := func(compactor http2test.Compactor, change func(*http2.Call), at ...int) []string {
		found := &log{}
		decoder := http2.Decoder{Handler: found}
		for _, call := range w.calls(&compactor, at...) {
			call.TimeNs = 1
			if change != nil {
				change(&call)
			}
			require.NoError(t, decoder.Call(&call))
		}
		return found.lines
	}
	assert.Equal(t, append([]string{"preface"}, rest...), told(http2test.Compactor{}, nil))
	assert.Equal(t, append([]string{"preface", "preface"}, rest...), told(http2test.Compactor{}, nil, 10))
	assert.Equal(t, append([]string{"preface"}, rest...), told(http2test.Compactor{HidePreface: true}, nil), "it is found")
	// Where it ends within DATA, there are two ways to read a call: none is told.
	assert.Equal(t, []string{"lost"}, told(http2test.Compactor{HidePreface: true}, nil, w.Len()-50)[:1])
	assert.Equal(t, rest, told(http2test.Compactor{HidePreface: true}, func(c *http2.Call) {
		if c.Offset == 0 {
			c.FrameLeft = uint32(len(http2test.Preface))
		}
	}), "it may be told of as the rest of a frame")
}
