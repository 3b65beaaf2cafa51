//go:build linux

package http

import (
	"maps"
	"slices"
	"strconv"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http1"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"
)

// errorGoAway is a value of error.type: the server closed the connection in good order, and had not processed the request
// (GOAWAY with NO_ERROR, RFC 9113 section 6.8).
const errorGoAway = "goaway"

// http2Error names an error code of RFC 9113 section 7, as error.type has it.
func http2Error(code uint32) string {
	names := [...]string{
		"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
		"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
		"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
	}
	if int64(code) < int64(len(names)) {
		return names[code]
	}
	return "0x" + strconv.FormatUint(uint64(code), 16)
}

// body is what is known of one message of a stream.
type body struct {
	bytes    int64 // of the payload so far; -1: some was lost
	promised int64 // content-length; -1: there is none
	ended    bool
	// doubt says that frames were lost since the last one of the stream in this direction. The end may be among them.
	doubt bool
}

func newBody(headers *http2.Headers) body {
	b := body{promised: -1}
	b.promise(headers)
	return b
}

func (b *body) promise(headers *http2.Headers) {
	if text := headers.Value(http2.FieldContentLength); text != "" {
		if length, err := strconv.ParseUint(text, 10, 63); err == nil {
			b.promised = int64(length)
		}
	}
}

// fulfilled says whether all of what was promised has come.
func (b *body) fulfilled() bool { return b.promised >= 0 && b.bytes == b.promised }

// size of the body; -1: it is not known. It is as long as was promised (RFC 9113 section 8.1.1) if it has an end.
func (b *body) size(promiseHolds bool) int64 {
	switch {
	case !b.ended:
		return -1
	case b.bytes < 0 && promiseHolds:
		return b.promised
	}
	return b.bytes
}

// openStream is a request whose response is not complete.
type openStream struct {
	Exchange
	selected bool
	request  body
	response body
	answered bool // there was a header section that may be the final one
	// interim says that the last header section of the response has a status that is not known. So it may be an interim
	// response, and ResponseNs is only right if what comes next shows that it is not.
	interim bool
	// typeUnknown says that there may be a content-type that is not known.
	typeUnknown bool
	// measured says that RequestBodyBytes is set.
	measured bool
	lastNs   uint64 // of the last frame
}

// settle takes note that nothing will show what the last header section was.
func (o *openStream) settle() {
	if o.interim {
		o.answered, o.interim, o.ResponseNs = false, false, 0
	}
}

func (o *openStream) tunnels() bool { return o.Method == "CONNECT" && o.Status/100 == 2 }

// streams pairs the messages of one HTTP/2 connection, in whichever order responses come: stream ids tell what belongs
// together, so no loss makes a wrong pair. It is pure, and not safe for concurrent use.
//
// What was lost may hide the end of a message, or the reset of a stream. Then sizes are unknown, and if nothing more comes
// of the stream, its exchange is counted as lost rather than told to have failed.
type streams struct {
	pairing *pairing
	role    Role // 0: not known yet
	sides   [2]side
	open    map[uint32]*openStream
	unused  []*openStream
	lastNs  uint64
	known   facts // of the last exchange
	failed  bool  // it carries no HTTP/2, or not any more

	highest uint32 // of the streams with requests that were seen
	// All requests from this stream on were seen, so a response to none of those that wait is no loss; 0: none were seen
	// since the last loss.
	seenFrom uint32
	lossy    bool // requests may have been lost, other than those from before the connection was joined
	// The server said that it processes no streams after this one, and why; goneAway is empty: it did not.
	lastProcessed uint32
	goneAway      string
	// The goroutine that has received the last request, and readerCleared is goStreams.cleared then.
	reader        uint64
	readerCleared uint32
	// It is told who serves a request, so who has received it is not believed to: a goroutine that the receiver has started for
	// a request that is over (the client has reset it, say) may still ask for that one's sake.
	served bool

	// Of the call that is under way.
	message *message
	head    *messageHead
}

// side takes what is found in one direction.
type side struct {
	*streams
	direction bpfMessageDirection
	decoder   http2.Decoder
	started   bool // something was told of it
}

// newStreams begins with a connection. role is 0 where it is not known which end this is.
func newStreams(p *pairing, role Role) *streams {
	s := &streams{pairing: p, role: role, open: map[uint32]*openStream{}}
	for direction := range s.sides {
		side := &s.sides[direction]
		side.streams, side.direction, side.decoder.Handler = s, bpfMessageDirection(direction), side
	}
	return s
}

// handle takes in one call. head is nil where nothing was captured.
func (s *streams) handle(m *message, head *messageHead, call *http2.Call) {
	s.lastNs = m.TimeNs
	if s.failed {
		return
	}
	s.message, s.head = m, head
	side := &s.sides[m.Direction&1]
	decoder := &side.decoder
	decoder.NoPreface = s.role != 0 && !side.isRequest()
	if err := decoder.Call(call); err != nil && !s.failed {
		s.fail()
	}
	side.started = true
	s.pairing.drops[dropLargeHead] += decoder.TooLarge
	s.pairing.tables.learned += decoder.Taught
	decoder.TooLarge, decoder.Taught = 0, 0
	s.message, s.head = nil, nil
}

// fail gives a connection up that does not keep to the protocol.
func (s *streams) fail() {
	s.pairing.drops[dropMalformed] += max(1, uint64(len(s.open)))
	s.forget()
	s.failed = true
}

// adopt takes a request over that asked in HTTP/1 to go on in HTTP/2 (h2c): it is answered on stream 1 (RFC 7540
// section 3.2). It is complete.
func (s *streams) adopt(e *pendingExchange) {
	o := s.add(1)
	o.Exchange, o.selected = e.Exchange, e.selected
	o.Status, o.ResponseNs = 0, 0 // status 101 is an interim response
	e.service = service{}
	o.GRPCStatus = -1
	o.request, o.response = body{ended: true, promised: -1}, body{promised: -1}
	o.measured = true
	o.lastNs = e.StartNs
	s.role = e.Role
}

// end ends what is left of a connection.
func (s *streams) end(m *message) {
	s.message = m
	for _, id := range s.ids() {
		o := s.open[id]
		switch {
		case o.request.doubt || o.response.doubt:
			s.drop(id, dropGap)
		case o.response.ended:
			s.complete(id, m.TimeNs)
		case o.answered && o.response.fulfilled():
			// Who has all that was promised need not wait for the end of the stream.
			o.response.ended = true
			s.complete(id, o.lastNs)
		default:
			o.ErrorType = m.errorType()
			s.complete(id, m.TimeNs)
		}
	}
	s.message = nil
}

// sweep forgets streams of which nothing was heard for long: their end was lost. It says whether the connection can be
// forgotten as well.
func (s *streams) sweep(nowNs uint64) bool {
	for id, o := range s.open {
		limit := idleRequest
		if o.request.doubt || o.response.doubt {
			limit = idleConnection
		}
		if nowNs > o.lastNs && nowNs-o.lastNs > uint64(limit) {
			s.drop(id, dropGap)
		}
	}
	return len(s.open) == 0 && nowNs > s.lastNs && nowNs-s.lastNs > uint64(idleConnection)
}

// forget drops all streams without counting them.
func (s *streams) forget() {
	for id := range s.open {
		s.remove(id)
	}
}

// ids gives the open streams in their order.
func (s *streams) ids() []uint32 { return slices.Sorted(maps.Keys(s.open)) }

// add makes an open stream.
func (s *streams) add(id uint32) *openStream {
	var o *openStream
	if last := len(s.unused) - 1; last >= 0 {
		o, s.unused = s.unused[last], s.unused[:last]
	} else {
		o = &openStream{}
	}
	s.open[id] = o
	s.highest = max(s.highest, id)
	if s.seenFrom == 0 {
		s.seenFrom = id
	}
	return o
}

// remove takes a stream off.
func (s *streams) remove(id uint32) {
	o := s.open[id]
	s.pairing.leave(&o.Exchange, nil)
	delete(s.open, id)
	*o = openStream{}
	if len(s.unused) < keptPending {
		s.unused = append(s.unused, o)
	}
}

func (s *streams) drop(id uint32, reason dropReason) {
	s.pairing.drops[reason]++
	s.remove(id)
}

// complete hands an exchange over.
func (s *streams) complete(id uint32, endNs uint64) {
	o := s.open[id]
	o.EndNs = endNs
	o.settle()
	o.SRTTUs, o.Retransmits = s.message.SrttUs, s.message.Retransmits
	if !o.measured {
		o.RequestBodyBytes = o.request.size(true)
	}
	// Responses to HEAD, and those without a change, promise a body that they do not have (RFC 9110 section 8.6).
	o.ResponseBodyBytes = o.response.size(o.Method != "" && o.Method != "HEAD" && o.Status != 0 && o.Status != 304)
	s.pairing.leave(&o.Exchange, s.message)
	if o.selected {
		s.pairing.known = &s.known
		s.pairing.emit(&o.Exchange)
	}
	s.remove(id)
}

// isRequest says whether the side carries requests.
func (s *side) isRequest() bool {
	return (s.role == RoleServer) == (s.direction == bpfMessageDirectionMESSAGE_RECEIVED)
}

// body is the message that the side carries.
func (s *side) body(o *openStream) *body {
	if s.isRequest() {
		return &o.request
	}
	return &o.response
}

// Preface implements http2.Handler.
func (s *side) Preface() {
	if s.role == 0 {
		s.tellRole(true)
	}
}

// tellRole takes note that requests go in the side's direction, or responses.
func (s *side) tellRole(requests bool) {
	s.role = RoleClient
	if requests == (s.direction == bpfMessageDirectionMESSAGE_RECEIVED) {
		s.role = RoleServer
	}
}

// Headers implements http2.Handler.
func (s *side) Headers(headers *http2.Headers) {
	if s.failed || headers.Stream%2 == 0 {
		return // pushed by the server: nobody asked for it
	}
	if headers.Missing {
		s.misses()
	}
	asks := headers.Has(http2.FieldMethod) || headers.Has(http2.FieldPath) || headers.Has(http2.FieldScheme) ||
		headers.Has(http2.FieldAuthority) || headers.Has(http2.FieldProtocol)
	answers := headers.Has(http2.FieldStatus)
	if s.role == 0 {
		if asks == answers {
			return // it does not tell
		}
		s.tellRole(asks)
	}
	switch {
	case s.isRequest() && answers || !s.isRequest() && asks:
		s.fail()
	case s.isRequest():
		s.ask(headers, asks)
	default:
		s.answer(headers)
	}
}

// ask takes in a header block in the direction of requests. certain says that it has a field of requests only.
func (s *side) ask(headers *http2.Headers, certain bool) {
	id := headers.Stream
	if o := s.open[id]; o != nil {
		// Trailers.
		o.request.doubt = false
		o.lastNs = headers.EndNs
		if headers.EndStream {
			s.endRequest(id, o, headers.EndNs)
		}
		return
	}
	switch {
	case id <= s.highest:
		return // of a stream that is closed
	case certain:
	case !headers.Unknown, headers.EndStream && s.seenFrom == 0:
		return // trailers, or they may be, of a request that was not seen
	}
	s.begin(headers)
}

// begin notes a request.
func (s *side) begin(headers *http2.Headers) {
	p, id := s.pairing, headers.Stream
	s.highest = id
	if len(s.open) >= maxPending && !s.dropDoubtful() {
		p.drops[dropPendingFull]++
		return
	}
	owner, selected := p.identify(s.head, s.role)
	o := s.add(id)
	method := headers.Value(http2.FieldMethod)
	target, host := headers.Value(http2.FieldPath), headers.Value(http2.FieldAuthority)
	if method == "CONNECT" && target == "" && !headers.Has(http2.FieldProtocol) {
		target = host // as HTTP/1 has it
	}
	if host == "" {
		host = headers.Value(http2.FieldHost)
	}
	// In place: it is a large structure.
	o.selected = selected
	o.Role, o.Owner, o.StartNs = s.role, owner, headers.StartNs
	o.Method, o.Target, o.Host, o.UserAgent = method, target, host, headers.Value(http2.FieldUserAgent)
	o.TraceParent, o.TraceState = headers.Value(http2.FieldTraceParent), headers.Value(http2.FieldTraceState)
	o.TraceBin, o.B3, o.RequestID = headers.Value(http2.FieldTraceBin), b3(headers), headers.Value(http2.FieldRequestID)
	o.MajorVersion, o.GRPC, o.GRPCStatus = 2, isGRPC(headers.Value(http2.FieldContentType)), -1
	o.Local, o.Peer = s.head.local(), s.head.peer()
	o.Secure = s.message.has(bpfMessageFlagMESSAGE_SECURE)
	o.FlowID, o.RequestOffset = s.head.flowID(), id
	o.request, o.response = newBody(headers), body{promised: -1}
	o.typeUnknown = headers.Unknown && !headers.Has(http2.FieldContentType)
	o.lastNs = headers.EndNs
	o.request.ended = headers.EndStream
	if headers.Partial {
		// What came of the response before is missed.
		o.response.bytes, o.response.doubt = -1, true
	}
	if s.role == RoleServer {
		p.goStreams.reads(s.streams, s.message, s.head)
	}
	p.enter(&o.Exchange, selected, s.message, s.head)
	if s.served {
		p.serving.leave(&o.service, nil)
	}
	if s.goneAway != "" && id > s.lastProcessed {
		o.ErrorType = s.goneAway // it was on its way already
		s.complete(id, headers.EndNs)
	}
}

// dropDoubtful makes room, and says whether it could.
func (s *streams) dropDoubtful() bool {
	for id, o := range s.open {
		if o.request.doubt || o.response.doubt {
			s.drop(id, dropGap)
		}
	}
	return len(s.open) < maxPending
}

// endRequest takes note that a request is complete.
func (s *streams) endRequest(id uint32, o *openStream, atNs uint64) {
	o.request.ended = true
	if o.response.ended {
		s.complete(id, atNs)
	}
}

// endResponse takes note that a response is complete. That is the end of the exchange, though the request may go on. A
// tunnel ends when both sides do.
func (s *streams) endResponse(id uint32, o *openStream, atNs uint64) {
	o.response.ended = true
	if !o.tunnels() || o.request.ended {
		s.complete(id, atNs)
	}
}

// answer takes in a header block in the direction of responses.
func (s *side) answer(headers *http2.Headers) {
	id := headers.Stream
	status := parseStatus(headers.Value(http2.FieldStatus))
	interim := status/100 == 1 && !headers.EndStream
	o := s.open[id]
	if o == nil {
		trailers := !headers.Has(http2.FieldStatus) && (headers.EndStream || !headers.Unknown)
		if !interim && !trailers && (s.seenFrom == 0 || id < s.seenFrom) {
			if s.lossy {
				s.pairing.drops[dropUnpaired]++
			} else {
				s.pairing.joined++ // it was asked for before the connection was joined
			}
		}
		return
	}
	lost := o.response.doubt || o.response.bytes < 0
	o.response.doubt = false
	o.lastNs = headers.EndNs
	if interim {
		return
	}
	s.pairing.answered(&o.Exchange, s.message, s.head)
	switch {
	case status != 0 && o.Status == 0:
		// What came before, if anything, was interim.
		o.answered, o.interim, o.Status, o.ResponseNs = true, false, status, headers.StartNs
		o.response.promise(headers)
		o.response.bytes = 0 // nor was there a body
	case status != 0:
	case !headers.EndStream:
		o.answered, o.interim, o.ResponseNs = true, true, headers.StartNs
	case !headers.Unknown:
		o.interim = false // these are trailers, so that was the final one
	case o.interim:
		// These are trailers or the final header section.
	case !o.answered && !lost:
		o.answered, o.ResponseNs = true, headers.StartNs
	}
	if o.typeUnknown && (isGRPC(headers.Value(http2.FieldContentType)) || headers.Has(http2.FieldGRPCStatus)) {
		o.GRPC = true // nobody else is answered like that
	}
	if headers.EndStream {
		o.GRPCStatus = http1.GRPCStatus([]byte(headers.Value(http2.FieldGRPCStatus)))
		s.endResponse(id, o, headers.EndNs)
	}
}

// Data implements http2.Handler.
func (s *side) Data(id, length uint32, endStream bool, atNs uint64) {
	o := s.open[id]
	if o == nil || s.failed {
		return
	}
	b := s.body(o)
	b.doubt = false
	o.lastNs = atNs
	if b.bytes >= 0 {
		b.bytes += int64(length)
	}
	if !s.isRequest() {
		o.interim = false // interim responses have no body
	}
	switch {
	case !endStream:
	case s.isRequest():
		s.endRequest(id, o, atNs)
	default:
		s.endResponse(id, o, atNs)
	}
}

// Reset implements http2.Handler.
func (s *side) Reset(id, code uint32, atNs uint64) {
	o := s.open[id]
	if o == nil || s.failed {
		return
	}
	switch {
	case o.response.doubt && !o.response.ended:
		s.drop(id, dropGap) // the response may have been complete
		return
	case code != 0 || !o.tunnels():
		o.ErrorType = http2Error(code)
	}
	s.complete(id, atNs)
}

// GoAway implements http2.Handler.
func (s *side) GoAway(last, code uint32, atNs uint64) {
	if s.failed || s.role == 0 || s.isRequest() {
		return // what a client says is of streams that the server opens
	}
	s.lastProcessed, s.goneAway = last, errorGoAway
	if code != 0 {
		s.goneAway = http2Error(code)
	}
	if s.highest <= last {
		return
	}
	for _, id := range s.ids() {
		if id <= last {
			continue
		}
		s.open[id].ErrorType = s.goneAway
		s.complete(id, atNs)
	}
}

// TableSize implements http2.Handler.
func (s *side) TableSize(bytes uint32) { s.sides[1-s.direction&1].decoder.AllowTable(bytes) }

// Lost implements http2.Handler.
func (s *side) Lost() {
	request := s.role != 0 && s.isRequest()
	s.lossy = s.lossy || s.started && !(s.role != 0 && !request)
	if request || s.role == 0 {
		s.seenFrom = 0
	}
	for _, o := range s.open {
		b := s.body(o)
		b.doubt = true
		if !b.ended {
			b.bytes = -1
		}
		if b == &o.response {
			o.settle()
		}
	}
}

// parseStatus reads a :status; 0: it is none.
func parseStatus(text string) int {
	if len(text) != 3 {
		return 0
	}
	status, err := strconv.ParseUint(text, 10, 16)
	if err != nil || status < 100 {
		return 0
	}
	return int(status)
}

// b3 gives the context of B3 propagation in its single form.
func b3(headers *http2.Headers) string {
	if single := headers.Value(http2.FieldB3); single != "" {
		return single
	}
	if !headers.Has(http2.FieldB3TraceID) && !headers.Has(http2.FieldB3Sampled) && !headers.Has(http2.FieldB3Flags) {
		return "" // as a rule; the others say nothing without these
	}
	fields := http1.B3{
		TraceID: []byte(headers.Value(http2.FieldB3TraceID)), SpanID: []byte(headers.Value(http2.FieldB3SpanID)),
		ParentSpanID: []byte(headers.Value(http2.FieldB3ParentSpanID)),
		Sampled:      []byte(headers.Value(http2.FieldB3Sampled)), Debug: []byte(headers.Value(http2.FieldB3Flags)),
	}
	return fields.Text()
}
