package genai

import (
	"bytes"
	"slices"
)

// Exchange is what a request and its response tell of themselves. What is not known has its zero value, or what its
// comment says.
type Exchange struct {
	Kind Kind

	// Of the request.
	RequestModel string
	// Stream says that the answer was asked for, or came, in parts while it was made.
	Stream bool

	// Of the response.
	ResponseModel string
	ResponseID    string
	FinishReasons []string // of the choices that were seen, in their order
	// What it took, -1 where it is not known.
	InputTokens, OutputTokens int64

	// FirstChunkNs is when the first bytes of the response's body were moved, on the kernel's monotonic clock in
	// nanoseconds; 0 where it is not known. Read leaves it so: who captures bodies knows it. Servers send the head of a
	// response that is a stream long before.
	FirstChunkNs uint64
}

// Bodies are what was captured of the bodies of an exchange: as transferred, with the framing of chunked transfer coding
// where there is one. They may be cut anywhere.
type Bodies struct {
	Request     []byte // its first bytes
	Response    []byte // its first bytes
	ResponseEnd []byte // its last bytes; they may overlap with the first ones
	// Whole says that the response came to the end that its framing says, so that ResponseEnd ends with it.
	Whole bool
}

// The longest values that are taken: one that is longer is no name.
const (
	maxName    = 128 // bytes, of models and ids
	maxReason  = 32  // bytes
	maxChoices = 16
)

// Read reads what the bodies of an exchange tell. False: the exchange has a path of Ollama, and its response does not show
// that it is Ollama's. The result holds on to nothing of the bodies.
func Read(kind Kind, bodies Bodies) (*Exchange, bool) {
	e := &Exchange{Kind: kind, InputTokens: -1, OutputTokens: -1}
	requested := e.readRequest(dechunkBeginning(bodies.Request))
	a := newAnswer(kind)
	a.read(bodies)
	if kind.ollama() && !a.isOllama() {
		return nil, false
	}
	e.Stream = a.streams == yes || a.streams == unknown && requested == yes
	e.ResponseModel, e.ResponseID = a.model, a.id
	e.InputTokens, e.OutputTokens = a.input, a.output
	e.FinishReasons = a.finishReasons()
	return e, true
}

// readRequest reads the first bytes of a request, and says whether it asks for a stream.
func (e *Exchange) readRequest(data []byte) (stream truth) {
	model := ""
	s := scanner{data: data}
	if b, ok := s.next(); !ok || b != '{' {
		return unknown
	}
	r := s.object(func(key []byte) result {
		switch string(key) {
		case "model":
			return s.text(&model, maxName)
		case "stream":
			return s.truth(&stream)
		}
		return s.skip()
	})
	if r == malformed {
		return unknown
	}
	e.RequestModel = model
	if r == whole && stream == unknown && e.Kind.ollama() {
		return yes // unless it is told otherwise
	}
	return stream
}

// answer is what a response has told so far.
type answer struct {
	kind      Kind
	streams   truth
	model, id string
	reasons   map[int64]string // by the index of the choice

	input, output int64 // tokens; -1 where they are not known

	// Of Ollama.
	done    truth
	reason  string
	counted bool // it has a member that only an answer of Ollama has
}

func newAnswer(kind Kind) *answer {
	return &answer{kind: kind, input: -1, output: -1, reasons: map[int64]string{}}
}

func (a *answer) isOllama() bool { return a.model != "" && (a.done != unknown || a.counted) }

func (a *answer) finishReasons() []string {
	if a.kind.ollama() {
		if a.done != yes || a.reason == "" {
			return nil
		}
		return []string{a.reason}
	}
	var indexes []int64
	for index := range a.reasons {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	var reasons []string
	for _, index := range indexes {
		reasons = append(reasons, a.reasons[index])
	}
	return reasons
}

// read reads the response, by the form that its first bytes have: server-sent events, or JSON.
func (a *answer) read(bodies Bodies) {
	beginning, end := dechunkBeginning(bodies.Response), dechunkEnd(bodies.ResponseEnd)
	beginning = bytes.TrimPrefix(beginning, []byte("\xef\xbb\xbf"))
	if b, ok := (&scanner{data: beginning}).next(); ok && b == '{' {
		a.readJSON(beginning, end, bodies.Whole)
		return
	}
	if !a.kind.ollama() && beginsEvents(beginning) {
		a.streams = yes
		a.readEvents(beginning, end, bodies.Whole)
	}
}

// readJSON reads one JSON object or, of Ollama, several: the first of them, and the last.
func (a *answer) readJSON(beginning, end []byte, bodyWhole bool) {
	s := scanner{data: beginning}
	r := a.readObject(&s)
	if r == malformed {
		return
	}
	_, more := s.next()
	switch {
	case a.kind.ollama():
		if a.done == no {
			a.streams = yes
		} else if r == whole && !more {
			a.streams = no
			return // it is the only one
		}
	case r == whole:
		a.streams = no
		return
	default:
		a.streams = no
	}
	if !bodyWhole {
		return
	}
	last := newAnswer(a.kind)
	for _, m := range lastObject(end) {
		last.member(m.key, &m.value)
	}
	a.adopt(last)
}

// adopt takes what a later part of the response has told.
func (a *answer) adopt(last *answer) {
	if last.model != "" {
		a.model = last.model
	}
	if last.id != "" {
		a.id = last.id
	}
	if last.input >= 0 {
		a.input = last.input
	}
	if last.output >= 0 {
		a.output = last.output
	}
	for index, reason := range last.reasons {
		if len(a.reasons) < maxChoices {
			a.reasons[index] = reason
		}
	}
	if last.done != unknown {
		a.done = last.done
	}
	if last.reason != "" {
		a.reason = last.reason
	}
	a.counted = a.counted || last.counted
}

// readObject reads an object of the API, and tells nothing of one that is malformed.
func (a *answer) readObject(s *scanner) result {
	read := newAnswer(a.kind)
	r := s.object(func(key []byte) result { return read.member(key, s) })
	if r != malformed {
		a.adopt(read)
	}
	return r
}

// member takes the value of a member of an object of the API.
func (a *answer) member(key []byte, s *scanner) result {
	name := string(key)
	if name == "model" {
		return s.text(&a.model, maxName)
	}
	if !a.kind.ollama() {
		switch name {
		case "id":
			return s.text(&a.id, maxName)
		case "choices":
			return a.readChoices(s)
		case "usage":
			return a.readUsage(s)
		}
		return s.skip()
	}
	switch name {
	case "done":
		return s.truth(&a.done)
	case "done_reason":
		return s.text(&a.reason, maxReason)
	case "prompt_eval_count":
		a.counted = true
		return s.count(&a.input)
	case "eval_count":
		a.counted = true
		return s.count(&a.output)
	}
	return s.skip()
}

// readUsage takes the value of usage. Nothing is told of one that is not there to its end.
func (a *answer) readUsage(s *scanner) result {
	input, output := int64(-1), int64(-1)
	r := s.object(func(key []byte) result {
		switch string(key) {
		case "prompt_tokens", "input_tokens":
			return s.count(&input)
		case "completion_tokens", "output_tokens":
			return s.count(&output)
		}
		return s.skip()
	})
	if r == whole && (input >= 0 || output >= 0) {
		a.input, a.output = input, output
	}
	return r
}

// readChoices takes the value of choices.
func (a *answer) readChoices(s *scanner) result {
	return s.array(func() result {
		index, reason := int64(-1), ""
		r := s.object(func(key []byte) result {
			switch string(key) {
			case "index":
				return s.count(&index)
			case "finish_reason":
				return s.text(&reason, maxReason)
			}
			return s.skip()
		})
		if r == whole && index >= 0 && reason != "" && len(a.reasons) < maxChoices {
			a.reasons[index] = reason
		}
		return r
	})
}
