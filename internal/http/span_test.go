//go:build linux

package http

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/golden"
	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/pdatatest/ptracetest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

var exampleStart = time.Unix(1_700_000_000, 0).UTC()

// exampleWall has the monotonic clock start with exampleStart.
func exampleWall(monotonicNs uint64) time.Time { return exampleStart.Add(time.Duration(monotonicNs)) }

func exampleScope(scope pcommon.InstrumentationScope) {
	scope.SetName("test")
	scope.SetVersion("1")
}

// exampleOwner is a process that has gone, of which only its name is known.
func exampleOwner(t testing.TB, name string) *workload.Workload {
	t.Helper()
	table, err := workload.NewTable(workload.Config{}, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, table.Close()) })
	return table.Lookup(workload.Key{PID: 1 << 30, StartBootNs: 1}, workload.Hint{Comm: name})
}

// exampleExchange is an ordinary exchange: 30 ms long, 20 ms to the first byte.
func exampleExchange(t testing.TB, role Role, changes ...func(*Exchange)) *Exchange {
	t.Helper()
	e := &Exchange{
		Role: role, Owner: exampleOwner(t, "shop"),
		StartNs: 1_000_000_000, ResponseNs: 1_020_000_000, EndNs: 1_030_000_000,
		Method: "POST", Target: "/orders/17/items?page=2&sig=secret", Host: "shop.example:8080",
		UserAgent: "curl/8.9.1", MinorVersion: 1, Status: 201,
		RequestBodyBytes: 100, ResponseBodyBytes: 2000,
		Local: netip.MustParseAddrPort("192.0.2.1:8080"), Peer: netip.MustParseAddrPort("192.0.2.2:40000"),
		FlowID: 0x1122334455667788, RequestOffset: 4242, ClientSeen: role == RoleServer,
		SRTTUs: 700, Retransmits: 2,
	}
	if role == RoleClient {
		e.Owner = exampleOwner(t, "curl")
		e.Local, e.Peer = e.Peer, e.Local
	}
	for _, change := range changes {
		change(e)
	}
	return e
}

// exampleCall is an ordinary call of gRPC.
func exampleCall(t testing.TB, role Role, changes ...func(*Exchange)) *Exchange {
	t.Helper()
	e := exampleExchange(t, role)
	e.Target, e.UserAgent, e.MajorVersion, e.MinorVersion = "/"+exampleMethod, "grpc-go/1.83.2", 2, 0
	e.GRPC, e.Status, e.RequestBodyBytes, e.ResponseBodyBytes = true, 200, 12, 34
	for _, change := range changes {
		change(e)
	}
	return e
}

const exampleMethod = "helloworld.Greeter/SayHello"

const exampleRoute = "/orders/{number}/items"

// exampleRouteOf is what a routeTable tells of an exchange.
func exampleRouteOf(t testing.TB, e *Exchange) string {
	t.Helper()
	if !e.GRPC {
		return exampleRoute
	}
	table, err := newRouteTable(nil, "")
	require.NoError(t, err)
	return table.route(e)
}

// spanOf makes the span of one exchange.
func spanOf(t testing.TB, e *Exchange) ptrace.Span {
	t.Helper()
	s := newSpans(exampleScope)
	id := exampleIdentifier(sequence()).identify(e)
	require.True(t, s.add(e, exampleRouteOf(t, e), id, exampleWall))
	return s.take().ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
}

func TestGoldenSpans(t *testing.T) {
	s, i := newSpans(exampleScope), exampleIdentifier(sequence())
	for _, e := range []*Exchange{
		exampleExchange(t, RoleClient),
		exampleExchange(t, RoleServer),
		exampleExchange(t, RoleServer, func(e *Exchange) {
			e.TraceParent, e.TraceState = exampleTraceParent, "vendor=1"
			e.Status, e.RequestOffset = 503, 5000
		}),
		exampleExchange(t, RoleClient, func(e *Exchange) {
			e.RequestOffset, e.Status, e.ResponseNs, e.ErrorType = 6000, 0, 0, "ECONNRESET"
			e.RequestBodyBytes, e.ResponseBodyBytes, e.SRTTUs = -1, -1, 0
			e.Host, e.UserAgent, e.Method = "", "", "PURGE"
		}),
		exampleExchange(t, RoleServer, func(e *Exchange) {
			e.RequestOffset, e.MajorVersion, e.MinorVersion, e.Secure = 7000, 2, 0, true
			e.Host, e.RequestID, e.Method, e.Status = "shop.example", "7f3a", "GET", 200
		}),
		exampleCall(t, RoleClient, func(e *Exchange) { e.RequestOffset = 8000 }),
		exampleCall(t, RoleServer, func(e *Exchange) { e.RequestOffset = 8000 }),
		exampleCall(t, RoleServer, func(e *Exchange) {
			e.RequestOffset, e.GRPCStatus, e.TraceBin = 9000, 13, traceBin(t, "00"+"00"+binaryTrace+"01"+binaryParent+"0201")
		}),
		exampleCall(t, RoleClient, func(e *Exchange) { e.RequestOffset, e.GRPCStatus, e.Status = 9100, grpcNoStatus, 502 }),
		exampleChat(t, RoleClient, func(e *Exchange) { e.RequestOffset = 9200 }),
		exampleChat(t, RoleServer, func(e *Exchange) { e.RequestOffset = 9200 }),
	} {
		require.True(t, s.add(e, exampleRouteOf(t, e), i.identify(e), exampleWall))
	}
	got := s.take()
	expected := filepath.Join("testdata", "spans.yaml")
	if *update {
		require.NoError(t, golden.WriteTraces(t, expected, got))
	}
	want, err := golden.ReadTraces(expected)
	require.NoError(t, err)
	require.NoError(t, ptracetest.CompareTraces(want, got,
		ptracetest.IgnoreResourceSpansOrder(), ptracetest.IgnoreSpansOrder(), // golden sorts what it writes
		ptracetest.IgnoreResourceAttributeValue("host.name"),
		ptracetest.IgnoreResourceAttributeValue("service.instance.id")))
}

func TestSpansOfOneServiceShareAResource(t *testing.T) {
	s := newSpans(exampleScope)
	server, client := exampleExchange(t, RoleServer), exampleExchange(t, RoleClient)
	for _, e := range []*Exchange{server, client, server} {
		require.True(t, s.add(e, exampleRoute, identity{}, exampleWall))
	}
	require.Equal(t, 3, s.count)
	traces := s.take()
	require.Equal(t, 2, traces.ResourceSpans().Len())
	assert.Equal(t, 2, traces.ResourceSpans().At(0).ScopeSpans().At(0).Spans().Len())
	assert.Equal(t, "test", traces.ResourceSpans().At(1).ScopeSpans().At(0).Scope().Name())
	assert.Zero(t, s.count)
	assert.Zero(t, s.take().SpanCount())
}

func TestASpanThatEndsBeforeItStartsIsNone(t *testing.T) {
	s := newSpans(exampleScope)
	e := exampleExchange(t, RoleServer, func(e *Exchange) { e.EndNs = e.StartNs - 1 })
	assert.False(t, s.add(e, "", identity{}, exampleWall))
	assert.Zero(t, s.count)
	assert.Zero(t, s.take().ResourceSpans().Len(), "no empty resource either")
	e.EndNs = e.StartNs
	assert.True(t, s.add(e, "", identity{}, exampleWall))
}

func TestSpanIdentityAndTimes(t *testing.T) {
	span := spanOf(t, exampleExchange(t, RoleServer, func(e *Exchange) {
		e.TraceParent, e.TraceState = "00-"+exampleTrace+"-"+exampleParent+"-03", "vendor=1"
	}))
	assert.Equal(t, exampleTrace, span.TraceID().String())
	assert.Equal(t, exampleParent, span.ParentSpanID().String())
	assert.EqualValues(t, 3, span.Flags())
	assert.Equal(t, "vendor=1", span.TraceState().AsRaw())
	assert.Equal(t, ptrace.SpanKindServer, span.Kind())
	assert.Equal(t, exampleStart.Add(time.Second), span.StartTimestamp().AsTime())
	assert.Equal(t, exampleStart.Add(1030*time.Millisecond), span.EndTimestamp().AsTime())

	span = spanOf(t, exampleExchange(t, RoleClient))
	assert.EqualValues(t, flagSampled, span.Flags())
	assert.Equal(t, ptrace.SpanKindClient, span.Kind())
}

func TestSpanNamesAndMethods(t *testing.T) {
	for _, method := range []string{
		"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
	} {
		e := &Exchange{Role: RoleServer, Method: method}
		assert.Equal(t, method, knownMethod(method))
		assert.Equal(t, method+" /a", e.spanName("/a"))
		assert.Equal(t, method, e.spanName(""))
		e.Role = RoleClient
		assert.Equal(t, method, e.spanName("/a"), "a client has no route")
	}
	for _, method := range []string{"", "get", "Get", "PURGE", "_OTHER", "\xff"} {
		assert.Equal(t, "HTTP /a", (&Exchange{Role: RoleServer, Method: method}).spanName("/a"))
		assert.Equal(t, "HTTP", (&Exchange{Role: RoleClient, Method: method}).spanName(""))
		attributes := spanOf(t, exampleExchange(t, RoleServer, func(e *Exchange) { e.Method = method })).Attributes().AsRaw()
		assert.Equal(t, methodOther, attributes[attrMethod])
		if method == "" {
			assert.NotContains(t, attributes, attrMethodOriginal)
		} else {
			assert.Equal(t, validText(method), attributes[attrMethodOriginal])
		}
	}
	known := spanOf(t, exampleExchange(t, RoleServer)).Attributes().AsRaw()
	assert.NotContains(t, known, attrMethodOriginal)
}

func TestSpanStatus(t *testing.T) {
	for _, test := range []struct {
		status         int
		errorType      string
		server, client string // error.type; "" is none, and then the status is unset
	}{
		{0, "", "", ""},
		{101, "", "", ""},
		{200, "", "", ""},
		{302, "", "", ""},
		{399, "", "", ""},
		{400, "", "", "400"},
		{404, "", "", "404"},
		{499, "", "", "499"},
		{500, "", "500", "500"},
		{503, "", "503", "503"},
		{0, "ECONNRESET", "ECONNRESET", "ECONNRESET"},
		{200, "aborted", "aborted", "aborted"},
		{500, "aborted", "aborted", "aborted"},
	} {
		for role, want := range map[Role]string{RoleServer: test.server, RoleClient: test.client} {
			span := spanOf(t, exampleExchange(t, role, func(e *Exchange) {
				e.Status, e.ErrorType = test.status, test.errorType
			}))
			attributes := span.Attributes().AsRaw()
			if want == "" {
				assert.Equal(t, ptrace.StatusCodeUnset, span.Status().Code(), "%+v", test)
				assert.NotContains(t, attributes, attrErrorType, "%+v", test)
			} else {
				assert.Equal(t, ptrace.StatusCodeError, span.Status().Code(), "%+v", test)
				assert.Equal(t, want, attributes[attrErrorType], "%+v", test)
			}
			assert.Empty(t, span.Status().Message())
			if test.status == 0 {
				assert.NotContains(t, attributes, attrStatusCode)
			} else {
				assert.EqualValues(t, test.status, attributes[attrStatusCode])
			}
		}
	}
}

func TestServerAttributes(t *testing.T) {
	e := exampleExchange(t, RoleServer)
	assert.Equal(t, map[string]any{
		attrMethod: "POST", attrScheme: "http", attrPath: "/orders/17/items", attrQuery: "page=2&sig=REDACTED",
		attrRoute: exampleRoute, attrStatusCode: int64(201), attrUserAgent: "curl/8.9.1",
		attrRequestBodySize: int64(100), attrResponseBodySize: int64(2000),
		attrProtocolName: "http", attrProtocolVersion: "1.1",
		attrServerAddress: "shop.example", attrServerPort: int64(8080), attrClientAddress: "192.0.2.2",
		attrPeerAddress: "192.0.2.2", attrPeerPort: int64(40000),
		attrLocalAddress: "192.0.2.1", attrLocalPort: int64(8080),
		attrTimeToFirstByte: 0.02, attrSRTT: 0.0007, attrRetransmits: int64(2), attrPID: int64(1 << 30),
	}, spanOf(t, e).Attributes().AsRaw())
}

func TestClientAttributes(t *testing.T) {
	e := exampleExchange(t, RoleClient)
	assert.Equal(t, map[string]any{
		attrMethod: "POST", attrScheme: "http",
		attrFullURL:    "http://shop.example:8080/orders/17/items?page=2&sig=REDACTED",
		attrStatusCode: int64(201), attrUserAgent: "curl/8.9.1",
		attrRequestBodySize: int64(100), attrResponseBodySize: int64(2000),
		attrProtocolName: "http", attrProtocolVersion: "1.1",
		attrServerAddress: "shop.example", attrServerPort: int64(8080),
		attrPeerAddress: "192.0.2.1", attrPeerPort: int64(8080),
		attrLocalAddress: "192.0.2.2", attrLocalPort: int64(40000),
		attrTimeToFirstByte: 0.02, attrSRTT: 0.0007, attrRetransmits: int64(2), attrPID: int64(1 << 30),
	}, spanOf(t, e).Attributes().AsRaw())
}

func TestServerAttributesOfGRPC(t *testing.T) {
	span := spanOf(t, exampleCall(t, RoleServer, func(e *Exchange) { e.RequestID = "7f3a" }))
	assert.Equal(t, exampleMethod, span.Name())
	assert.Equal(t, ptrace.SpanKindServer, span.Kind())
	assert.Equal(t, ptrace.StatusCodeUnset, span.Status().Code())
	assert.Equal(t, map[string]any{
		attrRPCSystem: "grpc", attrRPCMethod: exampleMethod, attrRPCStatus: "OK",
		attrUserAgent: "grpc-go/1.83.2", attrRequestID: []any{"7f3a"},
		attrRequestBodySize: int64(12), attrResponseBodySize: int64(34),
		attrTransport: "tcp", attrProtocolName: "http", attrProtocolVersion: "2",
		attrServerAddress: "shop.example", attrServerPort: int64(8080), attrClientAddress: "192.0.2.2",
		attrPeerAddress: "192.0.2.2", attrPeerPort: int64(40000),
		attrLocalAddress: "192.0.2.1", attrLocalPort: int64(8080),
		attrTimeToFirstByte: 0.02, attrSRTT: 0.0007, attrRetransmits: int64(2), attrPID: int64(1 << 30),
	}, span.Attributes().AsRaw())
}

func TestClientAttributesOfGRPC(t *testing.T) {
	span := spanOf(t, exampleCall(t, RoleClient, func(e *Exchange) { e.GRPCStatus = 5 }))
	assert.Equal(t, exampleMethod, span.Name())
	assert.Equal(t, ptrace.SpanKindClient, span.Kind())
	assert.Equal(t, ptrace.StatusCodeError, span.Status().Code())
	assert.Equal(t, map[string]any{
		attrRPCSystem: "grpc", attrRPCMethod: exampleMethod, attrRPCStatus: "NOT_FOUND", attrErrorType: "NOT_FOUND",
		attrUserAgent:       "grpc-go/1.83.2",
		attrRequestBodySize: int64(12), attrResponseBodySize: int64(34),
		attrTransport: "tcp", attrProtocolName: "http", attrProtocolVersion: "2",
		attrServerAddress: "shop.example", attrServerPort: int64(8080),
		attrPeerAddress: "192.0.2.1", attrPeerPort: int64(8080),
		attrLocalAddress: "192.0.2.2", attrLocalPort: int64(40000),
		attrTimeToFirstByte: 0.02, attrSRTT: 0.0007, attrRetransmits: int64(2), attrPID: int64(1 << 30),
	}, span.Attributes().AsRaw())
}

func TestSpanStatusOfGRPC(t *testing.T) {
	const none = grpcNoStatus
	for _, test := range []struct {
		grpc, http     int
		errorType      string
		status         string // rpc.response.status_code
		server, client string // error.type; "" is none, and then the status is unset
		shown          bool   // http.response.status_code
	}{
		{0, 200, "", "OK", "", "", false},
		{1, 200, "", "CANCELLED", "", "CANCELLED", false},
		{2, 200, "", "UNKNOWN", "UNKNOWN", "UNKNOWN", false},
		{7, 200, "", "PERMISSION_DENIED", "", "PERMISSION_DENIED", false},
		{12, 200, "", "UNIMPLEMENTED", "UNIMPLEMENTED", "UNIMPLEMENTED", false},
		{16, 200, "", "UNAUTHENTICATED", "", "UNAUTHENTICATED", false},
		{99, 200, "", "UNKNOWN", "UNKNOWN", "UNKNOWN", false},
		{none, 200, "", "", "", "", false},
		{none, 0, "", "", "", "", false},
		{none, 502, "", "", "502", "502", true},
		{none, 415, "", "", "", "415", true},
		{0, 502, "", "OK", "", "", true}, // gRPC's own status counts
		{14, 503, "", "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", true},
		{none, 0, "ECONNRESET", "", "ECONNRESET", "ECONNRESET", false},
		{none, 200, "CANCEL", "", "CANCEL", "CANCEL", false},
	} {
		for role, want := range map[Role]string{RoleServer: test.server, RoleClient: test.client} {
			span := spanOf(t, exampleCall(t, role, func(e *Exchange) {
				e.GRPCStatus, e.Status, e.ErrorType = test.grpc, test.http, test.errorType
			}))
			attributes := span.Attributes().AsRaw()
			code := ptrace.StatusCodeUnset
			expected := map[string]any{}
			if want != "" {
				code, expected[attrErrorType] = ptrace.StatusCodeError, want
			}
			if test.status != "" {
				expected[attrRPCStatus] = test.status
			}
			if test.shown {
				expected[attrStatusCode] = int64(test.http)
			}
			assert.Equal(t, code, span.Status().Code(), "%+v", test)
			for _, key := range []string{attrErrorType, attrRPCStatus, attrStatusCode} {
				assert.Equal(t, expected[key], attributes[key], "%s: %+v", key, test)
			}
		}
	}
}

func TestMethodsOfGRPC(t *testing.T) {
	for _, test := range []struct {
		target       string
		role         Role
		status       int
		name         string
		method, asIs any
	}{
		{"/a.B/C", RoleServer, 0, "a.B/C", "a.B/C", nil},
		{"http://a.example/a.B/C", RoleServer, 0, "a.B/C", "a.B/C", nil},
		{"/a.B/\xff", RoleClient, 0, "a.B/\uFFFD", "a.B/\uFFFD", nil},
		{"", RoleServer, 0, "grpc", nil, nil}, // the connection was joined midway
		{"", RoleClient, 0, "grpc", nil, nil},
		{"/", RoleServer, grpcUnimplemented, "grpc", nil, nil},
		{"/no.Such/Method", RoleServer, grpcUnimplemented, "grpc", methodOther, "no.Such/Method"},
		{"/no.Such/Method", RoleClient, grpcUnimplemented, "no.Such/Method", "no.Such/Method", nil},
	} {
		span := spanOf(t, exampleCall(t, test.role, func(e *Exchange) { e.Target, e.GRPCStatus = test.target, test.status }))
		assert.Equal(t, test.name, span.Name())
		attributes := span.Attributes().AsRaw()
		assert.Equal(t, test.method, attributes[attrRPCMethod], test.target)
		assert.Equal(t, test.asIs, attributes[attrRPCMethodOther], test.target)
	}
}

// attributesOf is what a span says of an exchange.
func attributesOf(e *Exchange, route string) map[string]any {
	var (
		list   attributeList
		shapes attributeShapes
	)
	e.describe(&list, route, addressTexts{})
	attributes := pcommon.NewMap()
	shapes.write(&list, attributes)
	return attributes.AsRaw()
}

func TestWhatIsNotKnownIsNotWritten(t *testing.T) {
	e := &Exchange{Role: RoleServer, Owner: &workload.Workload{}, RequestBodyBytes: -1, ResponseBodyBytes: -1}
	attributes := attributesOf(e, "")
	assert.Equal(t, map[string]any{
		attrMethod: methodOther, attrScheme: "http", attrProtocolName: "http", attrRetransmits: int64(0),
	}, attributes)
	e.Role = RoleClient
	attributes = attributesOf(e, "")
	assert.Equal(t, map[string]any{
		attrMethod: methodOther, attrScheme: "http", attrProtocolName: "http", attrRetransmits: int64(0),
	}, attributes)

	e.GRPC, e.GRPCStatus = true, grpcNoStatus
	attributes = attributesOf(e, "")
	assert.Equal(t, map[string]any{
		attrRPCSystem: "grpc", attrTransport: "tcp", attrProtocolName: "http", attrRetransmits: int64(0),
	}, attributes)

	e.RequestBodyBytes, e.ResponseBodyBytes = 0, 0
	attributes = attributesOf(e, "")
	assert.Subset(t, attributes, map[string]any{attrRequestBodySize: int64(0), attrResponseBodySize: int64(0)})
}

func TestTimeToFirstByte(t *testing.T) {
	for _, test := range []struct {
		start, response uint64
		want            time.Duration
		ok              bool
	}{{100, 0, 0, false}, {100, 99, 0, false}, {100, 100, 0, true}, {100, 150, 50, true}} {
		got, ok := (&Exchange{StartNs: test.start, ResponseNs: test.response}).timeToFirstByte()
		assert.Equal(t, test.ok, ok)
		assert.Equal(t, test.want, got)
	}
}

func TestProtocolVersion(t *testing.T) {
	for _, test := range []struct {
		method string
		minor  int
		want   string
	}{
		{"GET", 1, "1.1"}, {"GET", 0, "1.0"}, {"", 0, ""}, {"", 1, "1.1"}, {"GET", 2, "1.2"}, {"GET", -1, ""},
		{"GET", 99, ""},
	} {
		assert.Equal(t, test.want, (&Exchange{Method: test.method, MinorVersion: test.minor}).protocolVersion())
		assert.Equal(t, test.want, (&Exchange{Method: test.method, MajorVersion: 1, MinorVersion: test.minor}).protocolVersion())
		assert.Equal(t, "2", (&Exchange{Method: test.method, MajorVersion: 2}).protocolVersion())
	}
}

func TestServer(t *testing.T) {
	local, peer := netip.MustParseAddrPort("192.0.2.1:1111"), netip.MustParseAddrPort("[::ffff:192.0.2.2]:2222")
	for _, test := range []struct {
		role                 Role
		method, target, host string
		address              string
		port                 int64
	}{
		{RoleServer, "GET", "/", "a.example", "a.example", 80},
		{RoleClient, "GET", "/", "a.example:8080", "a.example", 8080},
		{RoleServer, "GET", "/", "a.example:", "a.example", 80},
		{RoleServer, "GET", "/", "192.0.2.9:81", "192.0.2.9", 81},
		{RoleServer, "GET", "/", "[2001:db8::1]", "2001:db8::1", 80},
		{RoleServer, "GET", "/", "[2001:db8::1]:81", "2001:db8::1", 81},
		{RoleServer, "GET", "http://b.example:82/x", "a.example", "b.example", 82},
		{RoleServer, "GET", "http://user:pass@b.example/x", "a.example", "b.example", 80},
		{RoleClient, "GET", "https://b.example/x", "a.example", "b.example", 443},
		{RoleServer, "OPTIONS", "*", "a.example:83", "a.example", 83},
		{RoleClient, "CONNECT", "c.example:443", "", "c.example", 443},
		{RoleClient, "CONNECT", "[::1]:444", "x", "::1", 444},
		// What is no host is not believed: the connection knows.
		{RoleServer, "GET", "/", "", "192.0.2.1", 1111},
		{RoleClient, "GET", "/", "", "192.0.2.2", 2222},
		{RoleServer, "GET", "/", "a b", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "user@a", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "a:b", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "a:0", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "a:99999", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", ":80", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "::1", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "[::1", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "[::1]x", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "[]", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "[name]", "192.0.2.1", 1111},
		{RoleServer, "GET", "/", "a/b", "192.0.2.1", 1111},
	} {
		e := &Exchange{
			Role: test.role, Owner: &workload.Workload{},
			Method: test.method, Target: test.target, Host: test.host, Local: local, Peer: peer,
		}
		attributes := attributesOf(e, "")
		assert.Equal(t, test.address, attributes[attrServerAddress], "%+v", test)
		assert.Equal(t, test.port, attributes[attrServerPort], "%+v", test)
	}
}

func TestWhatTLSCarriesIsHTTPS(t *testing.T) {
	for _, test := range []struct {
		target, host string
		secure       bool
		scheme       string
		port         int64
		url          string
	}{
		{"/a", "a.example", false, "http", 80, "http://a.example/a"},
		{"/a", "a.example", true, "https", 443, "https://a.example/a"},
		{"/a", "a.example:443", true, "https", 443, "https://a.example/a"},
		{"/a", "a.example:80", true, "https", 80, "https://a.example:80/a"},
		{"http://b.example/a", "a.example", true, "http", 80, "http://b.example/a"}, // of a proxy
		{"HTTPS://b.example/a", "a.example", false, "https", 443, "https://b.example/a"},
		{"ws://b.example/a", "a.example", true, "https", 443, "https://b.example/a"},
		{"*", "a.example", true, "https", 443, "https://a.example"},
		{"", "", true, "https", 0, ""},
	} {
		e := &Exchange{Role: RoleClient, Method: "GET", Target: test.target, Host: test.host, Secure: test.secure}
		assert.Equal(t, test.scheme, e.scheme(), "%+v", test)
		assert.EqualValues(t, test.port, e.server().port, "%+v", test)
		assert.Equal(t, test.url, e.fullURL(), "%+v", test)
	}
}

func TestFullURL(t *testing.T) {
	peer4, peer6 := "192.0.2.2:8080", "[2001:db8::2%eth0]:80"
	for _, test := range []struct{ method, target, host, peer, want string }{
		{"GET", "/", "a.example", peer4, "http://a.example/"},
		{"GET", "/a?b=c", "a.example:80", peer4, "http://a.example/a?b=c"},
		{"GET", "/a?", "a.example:8080", peer4, "http://a.example:8080/a"},
		{"GET", "/a?token=x", "[::1]:81", peer4, "http://[::1]:81/a?token=REDACTED"},
		{"GET", "/a", "", peer4, "http://192.0.2.2:8080/a"},
		{"GET", "/a", "", peer6, "http://[2001:db8::2]/a"},
		{"GET", "http://b.example/a?sig=1", "a.example", peer4, "http://b.example/a?sig=REDACTED"},
		{"GET", "https://b.example:443/a", "", peer4, "https://b.example/a"},
		{"GET", "http://me:secret@b.example/a", "", peer4, "http://REDACTED:REDACTED@b.example/a"},
		{"GET", "http://b.example?x", "", peer4, "http://b.example/?x"},
		{"GET", "http://me:secret", "", peer4, "http://192.0.2.2:8080/"}, // cut off before the at sign
		{"OPTIONS", "*", "a.example", peer4, "http://a.example"},
		{"CONNECT", "c.example:443", "c.example:443", peer4, "http://c.example:443"},
		{"GET", "a/b", "a.example", peer4, "http://a.example/a/b"},
		{"GET", "", "a.example", peer4, ""},
		{"GET", "/a", "", "", ""},
	} {
		e := &Exchange{Role: RoleClient, Method: test.method, Target: test.target, Host: test.host}
		if test.peer != "" {
			e.Peer = netip.MustParseAddrPort(test.peer)
		}
		assert.Equal(t, test.want, e.fullURL(), "%+v", test)
	}
}

// A string of OTLP is UTF-8; some receivers refuse all of a batch for one that is not.
func TestBytesFromTheNetworkBecomeText(t *testing.T) {
	const bad = "/\xff\xfe"
	for _, role := range []Role{RoleServer, RoleClient} {
		s := newSpans(exampleScope)
		e := exampleExchange(t, role, func(e *Exchange) {
			e.Method, e.Target, e.Host, e.UserAgent, e.ErrorType = bad, bad+"?"+bad, "h\xff", bad, bad
			e.RequestID = bad
		})
		require.True(t, s.add(e, bad, identity{}, exampleWall))
		span := s.take().ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
		assert.True(t, utf8.ValidString(span.Name()))
		for key, value := range span.Attributes().All() {
			assert.True(t, utf8.ValidString(value.AsString()), key)
		}
	}
}

func BenchmarkSpan(b *testing.B) {
	for name, role := range map[string]Role{"server": RoleServer, "client": RoleClient} {
		b.Run(name, func(b *testing.B) {
			s, i := newSpans(exampleScope), exampleIdentifier(sequence())
			e := exampleExchange(b, role)
			b.ReportAllocs()
			for b.Loop() {
				s.add(e, exampleRoute, i.identify(e), exampleWall)
				if s.count == 1000 {
					s.take()
				}
			}
		})
	}
}
