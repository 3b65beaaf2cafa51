//go:build linux

package http

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/genai"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// bodyCall is a call of a connection to a model server, as its server's end sees it.
type bodyCall struct {
	response bool
	head     bool
	text     string
	first    int  // how many of its bytes are captured; -1: all
	last     int  // instead: how many of the last ones
	lost     bool // it is not told of
}

func asking(text string) bodyCall  { return bodyCall{head: true, text: text, first: -1} }
func goingOn(text string) bodyCall { return bodyCall{text: text, first: -1} }
func answering(text string) bodyCall {
	return bodyCall{response: true, head: true, text: text, first: -1}
}
func further(text string) bodyCall { return bodyCall{response: true, text: text, first: -1} }

func (b bodyCall) withFirst(count int) bodyCall { b.first = count; return b }
func (b bodyCall) withLast(count int) bodyCall  { b.first, b.last = 0, count; return b }
func (b bodyCall) asLost() bodyCall             { b.lost = true; return b }

// readModels pairs calls, and gives what was told of the exchanges.
func readModels(t *testing.T, calls ...bodyCall) (told []*genai.Exchange, p *pairing) {
	t.Helper()
	owner := &workload.Workload{}
	p = newPairing(10, func(*messageHead, Role) (*workload.Workload, bool) { return owner, true },
		func(e *Exchange) { told = append(told, e.GenAI) })
	p.genAI = true
	describing := &wire{role: RoleServer, cookie: 1}
	offsets := [2]uint32{}
	nowNs := uint64(1)
	p.handle(&message{TimeNs: nowNs, Cookie: 1, Kind: uint8(bpfMessageKindMESSAGE_CONNECTION)}, describing.describe(), nil)
	for _, b := range calls {
		nowNs += stepNs
		m := message{
			TimeNs: nowNs, Cookie: 1, Kind: uint8(bpfMessageKindMESSAGE_DATA), Length: uint32(len(b.text)),
			Direction: uint8(bpfMessageDirectionMESSAGE_RECEIVED),
		}
		if b.head {
			m.Kind = uint8(bpfMessageKindMESSAGE_HEAD)
		}
		if b.response {
			m.Direction = uint8(bpfMessageDirectionMESSAGE_SENT)
		}
		m.Offset = offsets[m.Direction]
		offsets[m.Direction] += m.Length
		data := b.text
		switch {
		case b.last > 0:
			data = b.text[len(b.text)-b.last:]
			m.Flags = uint8(bpfMessageFlagMESSAGE_LAST_BYTES)
		case b.first >= 0:
			data = b.text[:b.first]
		}
		m.Captured = uint16(len(data))
		if len(data) < len(b.text) {
			for i, c := range []byte(b.text[len(b.text)-8:]) {
				m.Tail |= uint64(c) << (8 * i)
			}
		}
		if !b.lost {
			p.handle(&m, nil, []byte(data))
		}
	}
	return told, p
}

const (
	modelRequest = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`
	modelAnswer  = `{"id":"i","model":"m-1","choices":[{"index":0,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":3,"completion_tokens":4}}`
)

func modelHead(body string) string {
	return fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(body))
}

func answerHead(length int) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", length)
}

const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

func TestBodies(t *testing.T) {
	asked := asking(modelHead(modelRequest) + modelRequest)
	answered := answering(answerHead(len(modelAnswer)) + modelAnswer)
	whole := genai.Exchange{
		Kind: genai.OpenAIChat, RequestModel: "m", ResponseModel: "m-1", ResponseID: "i", FinishReasons: []string{"stop"},
		InputTokens: 3, OutputTokens: 4,
	}
	change := func(changes ...func(*genai.Exchange)) genai.Exchange {
		e := whole
		for _, c := range changes {
			c(&e)
		}
		return e
	}
	noUsage := func(e *genai.Exchange) { e.InputTokens, e.OutputTokens = -1, -1 }
	noReasons := func(e *genai.Exchange) { e.FinishReasons = nil }
	noAnswer := func(e *genai.Exchange) { noUsage(e); noReasons(e); e.ResponseModel, e.ResponseID = "", "" }
	streamed := func(e *genai.Exchange) { e.Stream = true }
	noRequest := func(e *genai.Exchange) { e.RequestModel = "" }

	long := strings.Replace(modelAnswer, `"stop"`, `"stop","message":"`+strings.Repeat("x", 10_000)+`"`, 1)
	event := "data: " + strings.ReplaceAll(modelAnswer, "\n", "") + "\n\n"
	part := `data: {"id":"i","model":"m-1","choices":[{"index":0,"delta":{"content":"x"}}]}` + "\n\n"
	done := "data: [DONE]\n\n"
	for name, test := range map[string]struct {
		calls []bodyCall
		want  []genai.Exchange
	}{
		"in one call each": {[]bodyCall{asked, answered}, []genai.Exchange{whole}},
		"one after the other": {
			[]bodyCall{asked, answered, asked, answered, asked, answered}, []genai.Exchange{whole, whole, whole},
		},
		"heads by themselves": {[]bodyCall{
			asking(modelHead(modelRequest)), goingOn(modelRequest), answering(answerHead(len(modelAnswer))), further(modelAnswer),
		}, []genai.Exchange{whole}},
		"in small parts": {[]bodyCall{
			asking(modelHead(modelRequest)), goingOn(modelRequest[:9]), goingOn(modelRequest[9:]),
			answering(answerHead(len(modelAnswer))), further(modelAnswer[:20]), further(modelAnswer[20:]),
		}, []genai.Exchange{whole}},
		"long, in two parts of one call": {[]bodyCall{
			asked, answering(answerHead(len(long)) + long[:1000]), further(long[1000:]).withLast(4096),
		}, []genai.Exchange{change(noReasons)}},
		"long, the end is not captured": {[]bodyCall{
			asked, answering(answerHead(len(long)) + long[:1000]), further(long[1000:]).withFirst(0),
		}, []genai.Exchange{change(noReasons, noUsage)}},
		"long, the middle is lost": {[]bodyCall{
			asked, answering(answerHead(len(long)) + long[:1000]), further(long[1000:2000]).asLost(),
			further(long[2000:]).withLast(4096),
		}, []genai.Exchange{change(noReasons)}},
		"the beginning of the answer is lost": {[]bodyCall{
			asked, answering(answerHead(len(modelAnswer))), further(modelAnswer[:20]).asLost(), further(modelAnswer[20:]),
		}, []genai.Exchange{change(noAnswer)}},
		"the beginning of the request is lost": {[]bodyCall{
			asking(modelHead(modelRequest)), goingOn(modelRequest[:9]).asLost(), goingOn(modelRequest[9:]), answered,
		}, []genai.Exchange{change(noRequest)}},
		"a stream": {[]bodyCall{
			asked, answering(chunkedHead), further(chunk(part)), further(chunk(part)), further(chunk(event)),
			further(chunk(done)), further("0\r\n\r\n"),
		}, []genai.Exchange{change(streamed)}},
		"a stream without usage": {[]bodyCall{
			asked, answering(chunkedHead), further(chunk(part)), further(chunk(done)), further("0\r\n\r\n"),
		}, []genai.Exchange{change(streamed, noReasons, noUsage)}},
		"a stream of which a part is lost": {[]bodyCall{
			asked, answering(chunkedHead), further(chunk(part)), further(chunk(part)).asLost(), further(chunk(part)),
			further(chunk(event)), further(chunk(done)), further("0\r\n\r\n"), asked, answered,
		}, []genai.Exchange{change(streamed), whole}},
		"a stream whose usage is lost": {[]bodyCall{
			asked, answering(chunkedHead), further(chunk(part)), further(chunk(event)).asLost(),
			further(chunk(done)), further("0\r\n\r\n"), asked, answered,
		}, []genai.Exchange{change(streamed, noReasons, noUsage), whole}},
		"two at a time": {
			[]bodyCall{asking(strings.Repeat(asked.text, 2)), answered, answered}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			told, p := readModels(t, test.calls...)
			var got []genai.Exchange
			for _, e := range told {
				if e != nil {
					assert.NotZero(t, e.FirstChunkNs|uint64(len(test.want)))
					e.FirstChunkNs = 0
					got = append(got, *e)
				}
			}
			if name == "two at a time" { // of the second nothing is kept
				require.Len(t, told, 2)
				assert.Nil(t, told[1])
				return
			}
			assert.Equal(t, test.want, got)
			assert.Zero(t, p.kept)
		})
	}
}

// Only so many are kept at a time, and all are forgotten in the end.
func TestBodiesAreBounded(t *testing.T) {
	_, p := readModels(t, asking(modelHead(modelRequest)+modelRequest))
	require.Equal(t, 1, p.kept)
	p.sweep(uint64(2 * idleRequest))
	assert.Zero(t, p.kept)

	p.kept = maxBodies
	c := &connection{pending: make([]pendingExchange, 1)}
	e := &c.pending[0]
	e.selected, e.Method, e.Target = true, "POST", "/v1/embeddings"
	p.keepBodies(c, e)
	assert.Nil(t, c.bodies)
	assert.EqualValues(t, 1, p.unkept)
}

// FuzzBodies has a body come in calls of which something is captured, or nothing, in pairs of bytes: the length, and what. What
// is kept is always a part of the body, and where it says.
func FuzzBodies(f *testing.F) {
	f.Add([]byte{10, 0, 20, 1, 30, 2})
	f.Add([]byte{255, 0, 255, 0, 255, 4, 255, 3})
	f.Add([]byte{10, 0, 20, 5, 30, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		whole := make([]byte, 0, 1<<16)
		b := bodies{}
		const start = 1<<32 - 1000 // offsets come around
		b.response.at, b.endAt = start, start
		for ; len(script) >= 2 && len(whole) < 1<<15; script = script[2:] {
			length, mode := int(script[0])*30, script[1]
			from := len(whole)
			for i := range length {
				whole = append(whole, byte((from+i)*(from+i)>>4))
			}
			call := whole[from:]
			offset := uint32(start + from)
			captured := min(length, int(mode>>3)*100)
			switch mode & 7 {
			case 0: // all
				b.response.take(offset, call, uint32(length))
				b.takeEnd(offset, call, uint32(length))
			case 1: // the first bytes
				b.response.take(offset, call[:captured], uint32(length))
				b.takeEnd(offset, nil, uint32(length))
			case 2: // the last bytes
				b.response.take(offset, nil, uint32(length))
				b.takeEnd(offset, call[length-captured:], uint32(length))
			case 3: // lost
			default: // with bytes that were told of before
				again := min(from, captured)
				b.response.take(offset-uint32(again), whole[from-again:], uint32(length+again))
				b.takeEnd(offset-uint32(again), whole[from-again:], uint32(length+again))
			}
			require.LessOrEqual(t, len(b.response.data), maxBodyPart)
			require.LessOrEqual(t, len(b.end), maxBodyPart)
			require.Equal(t, whole[:len(b.response.data)], append([]byte{}, b.response.data...))
			end := int(b.endAt - start)
			require.Equal(t, whole[end-len(b.end):end], append([]byte{}, b.end...))
		}
	})
}
