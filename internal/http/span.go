//go:build linux

package http

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// spans collects exchanges as spans, those of one workload identity under one resource.
// It is not safe for concurrent use.
type spans struct {
	describeScope func(pcommon.InstrumentationScope)
	traces        ptrace.Traces
	byResource    map[string]ptrace.SpanSlice
	recent        [2]resourceSpans // of byResource, by role
	count         int

	// To make the same again is what most of the work would be.
	attributes attributeList // of the last span
	shapes     attributeShapes
	expected   [2]*attributeShape // of the last spans, by role; nil where attributes share nothing
	addresses  addressTexts
}

// resourceSpans are the spans of one resource.
type resourceSpans struct {
	key   string // empty: there are none
	spans ptrace.SpanSlice
}

func newSpans(describeScope func(pcommon.InstrumentationScope)) *spans {
	return &spans{
		describeScope: describeScope,
		traces:        ptrace.NewTraces(),
		byResource:    map[string]ptrace.SpanSlice{},
		shapes:        attributeShapes{apart: !valuesCanBeShared()},
		addresses:     addressTexts{},
	}
}

// take hands over what was collected and begins anew.
func (s *spans) take() ptrace.Traces {
	traces := s.traces
	s.traces = ptrace.NewTraces()
	clear(s.byResource)
	clear(s.recent[:])
	s.count = 0
	return traces
}

// add makes an exchange a span. wall turns nanoseconds of the kernel's monotonic clock into time. False: the exchange
// ends before it starts, and is no span.
func (s *spans) add(e *Exchange, route string, id identity, wall func(monotonicNs uint64) time.Time) bool {
	if e.EndNs < e.StartNs {
		return false
	}
	span := s.of(e).AppendEmpty()
	span.SetTraceID(id.trace)
	span.SetSpanID(id.span)
	span.SetParentSpanID(id.parent)
	span.SetFlags(uint32(id.flags)) // the lower 8 bits are those of W3C Trace Context
	span.TraceState().FromRaw(id.state)
	span.SetName(e.spanName(route))
	span.SetKind(ptrace.SpanKindServer)
	if e.Role == RoleClient {
		span.SetKind(ptrace.SpanKindClient)
	}
	// Both ends by one reading of the clock's offset: that the clock may be set in between is not the span's concern.
	start := wall(e.StartNs)
	span.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	span.SetEndTimestamp(pcommon.NewTimestampFromTime(start.Add(e.duration())))
	if e.failed() {
		span.Status().SetCode(ptrace.StatusCodeError)
	}
	s.describe(e, route, span.Attributes())
	s.count++
	return true
}

// describe writes the attributes of a span. Mostly they have the keys of the last one of the same role.
func (s *spans) describe(e *Exchange, route string, target pcommon.Map) {
	expected := &s.expected[e.Role&1]
	list := &s.attributes
	if list.expect(*expected); *expected != nil {
		e.describe(list, route, s.addresses)
		if !list.strayed && list.length == len((*expected).last) {
			(*expected).write(target)
			return
		}
		list.expect(nil)
	}
	e.describe(list, route, s.addresses)
	if s.shapes.apart {
		list.write(target)
		return
	}
	*expected = s.shapes.find(list)
	(*expected).write(target)
}

// of gives the spans that have the resource of an exchange.
func (s *spans) of(e *Exchange) ptrace.SpanSlice {
	key := e.Owner.ResourceKey()
	recent := &s.recent[e.Role&1]
	if recent.key == key && key != "" { // no hash
		return recent.spans
	}
	slice, ok := s.byResource[key]
	if !ok {
		resource := s.traces.ResourceSpans().AppendEmpty()
		e.Owner.PutResource(resource.Resource().Attributes())
		scope := resource.ScopeSpans().AppendEmpty()
		s.describeScope(scope.Scope())
		slice = scope.Spans()
		s.byResource[key] = slice
	}
	*recent = resourceSpans{key, slice}
	return slice
}

// duration is how long an exchange that does not end before it starts took.
func (e *Exchange) duration() time.Duration { return time.Duration(e.EndNs - e.StartNs) }

// timeToFirstByte is from the first byte of the request to that of the response, where there is one.
func (e *Exchange) timeToFirstByte() (time.Duration, bool) {
	if e.ResponseNs == 0 || e.ResponseNs < e.StartNs {
		return 0, false
	}
	return time.Duration(e.ResponseNs - e.StartNs), true
}

// spanName is "{method} {http.route}", or the method alone; a method that is not known is HTTP there. A client has no
// route, and no url.template either, which is what its name would have. Of a call of gRPC it is rpc.method, and grpc where
// that is not known. Of a client of a model server it is the operation and the model.
func (e *Exchange) spanName(route string) string {
	if e.GenAI != nil && e.Role == RoleClient {
		return e.genAISpanName()
	}
	if e.GRPC {
		if route == "" || route == methodOther {
			return systemGRPC
		}
		return validText(route)
	}
	method := knownMethod(e.Method)
	if method == methodOther {
		method = "HTTP"
	}
	if route == "" || e.Role == RoleClient {
		return method
	}
	f := e.facts()
	if !f.named || f.nameRoute != route {
		f.name, f.nameRoute, f.named = method+" "+validText(route), route, true
	}
	return f.name
}

// failed says whether the exchange is an error to the one whose span it is: a status of 4xx is the client's error
// alone. The status of gRPC decides before that of HTTP, which may be a proxy's.
func (e *Exchange) failed() bool {
	switch {
	case e.ErrorType != "":
		return true
	case e.hasGRPCStatus():
		return grpcFailed(e.Role, e.GRPCStatus)
	}
	return e.Status >= 500 || e.Role == RoleClient && e.Status >= 400
}

func (e *Exchange) hasGRPCStatus() bool { return e.GRPC && e.GRPCStatus > grpcNoStatus }

// errorType is the value of error.type, empty where nothing failed. Why there is no whole response says more than the
// status, which stands in an attribute of its own.
func (e *Exchange) errorType() string {
	switch {
	case !e.failed():
		return ""
	case e.ErrorType != "":
		return e.ErrorType
	case e.hasGRPCStatus():
		return grpcStatusName(e.GRPCStatus)
	default:
		return strconv.Itoa(e.Status)
	}
}

// describe writes what the semantic conventions for spans of HTTP (server and client, stable) or of gRPC (release
// candidate) have, and what the connection adds. What is not known is not written.
func (e *Exchange) describe(attributes *attributeList, route string, addresses addressTexts) {
	if e.GRPC {
		e.describeCall(attributes, route)
	} else {
		e.describeRequest(attributes, route)
	}
	attributes.putText(attrErrorType, e.errorType())
	attributes.putText(attrUserAgent, e.UserAgent)
	if e.RequestID != "" {
		attributes.putList(attrRequestID, validText(e.RequestID))
	}
	if e.RequestBodyBytes >= 0 {
		attributes.putInt(attrRequestBodySize, e.RequestBodyBytes)
	}
	if e.ResponseBodyBytes >= 0 {
		attributes.putInt(attrResponseBodySize, e.ResponseBodyBytes)
	}

	attributes.putStr(attrProtocolName, "http")
	attributes.putKnown(attrProtocolVersion, e.protocolVersion())
	f := e.facts()
	attributes.putText(attrServerAddress, f.server.text(addresses))
	if f.server.port != 0 {
		attributes.putInt(attrServerPort, int64(f.server.port))
	}
	local, peer := f.ends(addresses)
	if peer != "" {
		attributes.putStr(attrPeerAddress, peer)
		attributes.putInt(attrPeerPort, int64(e.Peer.Port()))
		if e.Role == RoleServer {
			attributes.putStr(attrClientAddress, peer) // as far as the connection tells: it may be a proxy's
		}
	}
	if local != "" {
		attributes.putStr(attrLocalAddress, local)
		attributes.putInt(attrLocalPort, int64(e.Local.Port()))
	}

	if delay, ok := e.timeToFirstByte(); ok {
		attributes.putDouble(attrTimeToFirstByte, delay.Seconds())
	}
	if e.SRTTUs > 0 {
		attributes.putDouble(attrSRTT, float64(e.SRTTUs)/1e6)
	}
	attributes.putInt(attrRetransmits, int64(e.Retransmits))
	if e.GenAI != nil {
		e.describeGenAI(attributes)
	}
	if e.Owner.PID != 0 { // the resource is of all processes of a service
		attributes.putInt(attrPID, int64(e.Owner.PID))
	}
}

// describeRequest writes what is of HTTP alone.
func (e *Exchange) describeRequest(attributes *attributeList, route string) {
	method := knownMethod(e.Method)
	attributes.putStr(attrMethod, method)
	if method == methodOther {
		attributes.putText(attrMethodOriginal, e.Method)
	}
	attributes.putStr(attrScheme, e.facts().scheme)
	if e.Role == RoleClient {
		attributes.putKnown(attrFullURL, e.facts().fullURL(e))
	} else {
		e.describeServed(attributes, route)
	}
	if e.Status != 0 {
		attributes.putInt(attrStatusCode, int64(e.Status))
	}
}

// describeCall writes what is of gRPC alone.
func (e *Exchange) describeCall(attributes *attributeList, method string) {
	attributes.putStr(attrRPCSystem, systemGRPC)
	attributes.putText(attrRPCMethod, method)
	if method == methodOther {
		attributes.putText(attrRPCMethodOther, e.rpcMethod())
	}
	attributes.putText(attrRPCStatus, grpcStatusName(e.GRPCStatus))
	if status := e.strangeStatus(); status != 0 {
		attributes.putInt(attrStatusCode, int64(status))
	}
	attributes.putStr(attrTransport, "tcp")
}

// strangeStatus is the status of HTTP where it is not the one that every answer of gRPC has ("gRPC over HTTP2",
// Responses): it is a proxy's, say. 0: there is none.
func (e *Exchange) strangeStatus() int {
	if e.Status == 200 {
		return 0
	}
	return e.Status
}

// describeServed writes what is of a server's span alone.
func (e *Exchange) describeServed(attributes *attributeList, route string) {
	f := e.facts()
	attributes.putText(attrPath, f.path)
	attributes.putKnown(attrQuery, f.shownQuery())
	attributes.putText(attrRoute, route)
}

// protocolVersion is the version as network.protocol.version spells it, empty where no request line was understood.
func (e *Exchange) protocolVersion() string {
	switch {
	case e.MajorVersion == 2:
		return "2"
	case e.MinorVersion == 1:
		return "1.1"
	case e.MinorVersion == 0 && e.Method != "":
		return "1.0"
	case e.MinorVersion > 1 && e.MinorVersion <= 9:
		return "1." + strconv.Itoa(e.MinorVersion)
	}
	return ""
}

// The schemes that are told apart.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
)

// scheme is what a target in absolute-form asks a proxy for, else what was on the wire.
func (e *Exchange) scheme() string {
	secure := e.Secure
	if e.Target != "" && e.Target[0] != '/' {
		switch scheme, _, _, ok := splitAbsolute(e.Target); {
		case !ok:
		case strings.EqualFold(scheme, schemeHTTPS):
			secure = true
		case strings.EqualFold(scheme, schemeHTTP):
			secure = false
		}
	}
	if secure {
		return schemeHTTPS
	}
	return schemeHTTP
}

func defaultPort(scheme string) uint16 {
	if scheme == schemeHTTPS {
		return 443
	}
	return 80
}

// endpoint is a server as its client calls it. It is comparable, and made without allocation.
type endpoint struct {
	host    string // without brackets; empty: address has it
	address netip.Addr
	port    uint16 // 0: not known
}

// server tells server.address and server.port. A target in absolute-form comes before the Host header (RFC 9112 section
// 3.2.2); where neither is of use, the server's end of the connection serves.
func (e *Exchange) server() endpoint {
	if host, port, ok := splitHost(e.authority()); ok {
		if port == 0 {
			port = defaultPort(e.scheme())
		}
		return endpoint{host: host, port: port}
	}
	end := e.Local
	if e.Role == RoleClient {
		end = e.Peer
	}
	if !end.IsValid() {
		return endpoint{}
	}
	return endpoint{address: plainAddr(end), port: end.Port()}
}

// text is the host or the address; empty: neither is known.
func (s endpoint) text(addresses addressTexts) string {
	if s.host == "" && s.address.IsValid() {
		return addresses.text(s.address)
	}
	return s.host
}

// addressTexts are addresses as a person writes them, so that they are not written anew for each span.
type addressTexts map[netip.Addr]string

// maxAddressTexts bounds them. When there are more, all are forgotten.
const maxAddressTexts = 1024

func (t addressTexts) text(address netip.Addr) string {
	if known, found := t[address]; found {
		return known
	}
	if len(t) >= maxAddressTexts {
		clear(t)
	}
	text := address.String()
	t[address] = text
	return text
}

// authority is host and port of what was asked for, without user information.
func (e *Exchange) authority() string {
	switch {
	case e.Target == "" || e.Target[0] == '/' || e.Target[0] == '*':
	case e.Method == "CONNECT":
		return e.Target
	default:
		if _, authority, _, ok := splitAbsolute(e.Target); ok {
			return authority[strings.LastIndexByte(authority, '@')+1:]
		}
	}
	return e.Host
}

// splitHost takes apart the value of a Host header (RFC 9110 section 7.2); the port is 0 if there is none. It refuses
// what cannot be a host: then it is not known what the client called the server.
func splitHost(authority string) (host string, port uint16, ok bool) {
	host = authority
	digits := ""
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "", 0, false
		}
		host = authority[1:end]
		if rest := authority[end+1:]; rest != "" {
			if rest[0] != ':' {
				return "", 0, false
			}
			digits = rest[1:]
		}
		if strings.IndexByte(host, ':') < 0 { // IPvFuture is left out: nobody uses it
			return "", 0, false
		}
	} else if colon := strings.IndexByte(authority, ':'); colon >= 0 {
		host, digits = authority[:colon], authority[colon+1:]
	}
	if host == "" {
		return "", 0, false
	}
	for i := range len(host) {
		if endsHost(host[i]) {
			return "", 0, false
		}
	}
	if digits == "" { // also "host:", which RFC 3986 allows
		return host, 0, true
	}
	number, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || number == 0 {
		return "", 0, false
	}
	return host, uint16(number), true
}

// endsHost says whether a byte cannot be in a host: whatever reg-name may have can, and the colons of IPv6; nothing that
// begins another part of a URL.
func endsHost(b byte) bool {
	switch b {
	case '/', '?', '#', '@', '[', ']', '\\', '"', '<', '>', '`', 0x7f:
		return true
	}
	return b <= ' '
}

// fullURL is url.full as the client would have it: what is secret in it is redacted, the default port is left out.
// Empty where the path or the server is not known.
func (e *Exchange) fullURL() string {
	if e.Target == "" {
		return ""
	}
	scheme, server := e.scheme(), e.server()
	if server == (endpoint{}) {
		return ""
	}
	path, query := splitTarget(e.Target)
	if path == "*" {
		path = "" // RFC 9112 section 7.1: the target of OPTIONS * is the server without a path
	}
	query = redactQuery(query)

	var buffer [256]byte
	url := buffer[:0]
	url = append(append(url, scheme...), "://"...)
	if e.Target[0] != '/' {
		if _, authority, _, ok := splitAbsolute(e.Target); ok && strings.IndexByte(authority, '@') >= 0 {
			url = append(url, redacted+":"+redacted+"@"...)
		}
	}
	switch {
	case strings.IndexByte(server.host, ':') >= 0:
		url = append(append(append(url, '['), server.host...), ']')
	case server.host != "":
		url = append(url, server.host...)
	case server.address.Is6():
		url = append(server.address.AppendTo(append(url, '[')), ']')
	default:
		url = server.address.AppendTo(url)
	}
	if server.port != 0 && server.port != defaultPort(scheme) {
		url = strconv.AppendUint(append(url, ':'), uint64(server.port), 10)
	}
	if path != "" && path[0] != '/' {
		url = append(url, '/')
	}
	url = append(url, path...)
	if query != "" {
		url = append(append(url, '?'), query...)
	}
	return string(url)
}

// plainAddr is an address as a person writes it: of an IPv4 connection on an IPv6 socket the IPv4 one, without a zone.
func plainAddr(end netip.AddrPort) netip.Addr { return end.Addr().Unmap().WithZone("") }
