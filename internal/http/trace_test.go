//go:build linux

package http

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// The example of W3C Trace Context.
const (
	exampleTrace       = "0af7651916cd43dd8448eb211c80319c"
	exampleParent      = "b7ad6b7169203331"
	exampleTraceParent = "00-" + exampleTrace + "-" + exampleParent + "-01"
)

func TestParseTraceParent(t *testing.T) {
	const ids = exampleTrace + "-" + exampleParent
	for _, test := range []struct {
		name, header string
		flags        uint8
		ok           bool
	}{
		{"sampled", "00-" + ids + "-01", 1, true},
		{"not sampled", "00-" + ids + "-00", 0, true},
		{"random trace id of level 2", "00-" + ids + "-03", 3, true},
		{"flags of the future", "00-" + ids + "-ff", 0xff, true},
		{"higher version", "01-" + ids + "-01", 1, true},
		{"higher version with more", "cc-" + ids + "-01-what-the-future-will-be-like", 1, true},
		{"higher version with an empty rest", "cc-" + ids + "-01-", 1, true},

		{"empty", "", 0, false},
		{"version 00 with more", "00-" + ids + "-01-more", 0, false},
		{"version 00 with a dash at the end", "00-" + ids + "-01-", 0, false},
		{"higher version without a dash after the flags", "cc-" + ids + "-01.what", 0, false},
		{"higher version with longer flags", "cc-" + ids + "-010", 0, false},
		{"version ff", "ff-" + ids + "-01", 0, false},
		{"version of no hex", "0x-" + ids + "-01", 0, false},
		{"upper case version", "0A-" + ids + "-01", 0, false},
		{"short version", "0-" + ids + "-01x", 0, false},
		{"zero trace id", "00-" + strings.Repeat("0", 32) + "-" + exampleParent + "-01", 0, false},
		{"zero parent id", "00-" + exampleTrace + "-" + strings.Repeat("0", 16) + "-01", 0, false},
		{"upper case trace id", "00-" + strings.ToUpper(exampleTrace) + "-" + exampleParent + "-01", 0, false},
		{"upper case parent id", "00-" + exampleTrace + "-" + strings.ToUpper(exampleParent) + "-01", 0, false},
		{"upper case flags", "00-" + ids + "-0A", 0, false},
		{"flags of no hex", "00-" + ids + "-.0", 0, false},
		{"short flags", "00-" + ids + "-1", 0, false},
		{"short trace id", "00-" + exampleTrace[1:] + "-" + exampleParent + "-01", 0, false},
		{"long trace id", "00-0" + exampleTrace + "-" + exampleParent + "-01", 0, false},
		{"underscores", "00_" + exampleTrace + "_" + exampleParent + "_01", 0, false},
		{"no hex in the trace id", "00-.0" + exampleTrace[2:] + "-" + exampleParent + "-01", 0, false},
		{"space before", " 00-" + ids + "-01", 0, false},
		{"space after", "00-" + ids + "-01 ", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseTraceParent(test.header)
			require.Equal(t, test.ok, ok)
			if !ok {
				assert.Zero(t, got)
				return
			}
			assert.Equal(t, exampleTrace, got.trace.String())
			assert.Equal(t, exampleParent, got.parent.String())
			assert.Equal(t, test.flags, got.flags)
		})
	}
}

func FuzzParseTraceParent(f *testing.F) {
	f.Add(exampleTraceParent)
	f.Add("cc-" + exampleTraceParent[3:] + "-more")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := parseTraceParent(header)
		if !ok {
			assert.Zero(t, got)
			return
		}
		assert.False(t, got.trace.IsEmpty())
		assert.False(t, got.parent.IsEmpty())
		assert.Equal(t, header[2:55], fmt.Sprintf("-%s-%s-%02x", got.trace, got.parent, got.flags))
	})
}

// The example of OpenCensus' BinaryEncoding, which differs from that of W3C.
const (
	binaryTrace  = "4bf92f3577b34da6a3ce929d000e4736"
	binaryParent = "34f067aa0ba902b7"
)

// traceBin encodes hexadecimal digits as gRPC does binary metadata.
func traceBin(t testing.TB, digits string) string {
	t.Helper()
	decoded, err := hex.DecodeString(digits)
	require.NoError(t, err)
	return base64.RawStdEncoding.EncodeToString(decoded)
}

func TestParseTraceBin(t *testing.T) {
	const ids = "00" + "00" + binaryTrace + "01" + binaryParent
	for _, test := range []struct {
		name, header string
		flags        uint8
		ok           bool
	}{
		{"sampled", traceBin(t, ids+"0201"), 1, true},
		{"not sampled", traceBin(t, ids+"0200"), 0, true},
		{"other options", traceBin(t, ids+"02ff"), 1, true},
		{"other options, not sampled", traceBin(t, ids+"02fe"), 0, true},
		{"no options", traceBin(t, ids), 1, true},
		{"in another order", traceBin(t, "00"+"0200"+"01"+binaryParent+"00"+binaryTrace), 0, true},
		{"fields of the future", traceBin(t, ids+"0200"+"03aabb"), 0, true},
		{"many fields of the future", traceBin(t, ids+"0200"+"03"+strings.Repeat("ab", 500)), 0, true},
		{"padded", traceBin(t, ids+"0200") + "=", 0, true},
		{"two", traceBin(t, ids+"0200") + "," + traceBin(t, ids+"0201"), 0, true},

		{"empty", "", 0, false},
		{"padding alone", "==", 0, false},
		{"a comma alone", ",", 0, false},
		{"no base64", traceBin(t, ids+"0200")[:38] + "!", 0, false},
		{"base64 of one digit more", traceBin(t, ids+"0200") + "AA", 0, false},
		{"version alone", traceBin(t, "00"), 0, false},
		{"another version", traceBin(t, "01"+ids[2:]+"0201"), 0, false},
		{"no trace", traceBin(t, "00"+"01"+binaryParent+"0201"), 0, false},
		{"no span", traceBin(t, "00"+"00"+binaryTrace+"0201"), 0, false},
		{"zero trace", traceBin(t, "00"+"00"+strings.Repeat("00", 16)+"01"+binaryParent+"0201"), 0, false},
		{"zero span", traceBin(t, "00"+"00"+binaryTrace+"01"+strings.Repeat("00", 8)+"0201"), 0, false},
		{"trace cut off", traceBin(t, "00"+"00"+binaryTrace[:30]), 0, false},
		{"span cut off", traceBin(t, ids[:len(ids)-2]), 0, false},
		{"options cut off", traceBin(t, ids+"02"), 0, false},
		{"fields of the future before", traceBin(t, "00"+"03"+ids[2:]+"0201"), 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseTraceBin(test.header)
			require.Equal(t, test.ok, ok)
			if !ok {
				assert.Zero(t, got)
				return
			}
			assert.Equal(t, binaryTrace, got.trace.String())
			assert.Equal(t, binaryParent, got.parent.String())
			assert.Equal(t, test.flags, got.flags)
		})
	}
}

func FuzzParseTraceBin(f *testing.F) {
	f.Add(traceBin(f, "00"+"00"+binaryTrace+"01"+binaryParent+"0201"))
	f.Add(traceBin(f, "00"+"0200"+"01"+binaryParent+"00"+binaryTrace) + "==,")
	f.Add(traceBin(f, "00"+"00"+binaryTrace+"01"+binaryParent+"03"))
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := parseTraceBin(header)
		if !ok {
			assert.Zero(t, got)
			return
		}
		assert.False(t, got.trace.IsEmpty())
		assert.False(t, got.parent.IsEmpty())
		again, ok := parseTraceBin(traceBin(t, fmt.Sprintf("0000%s01%s02%02x", got.trace, got.parent, got.flags)))
		assert.True(t, ok)
		assert.Equal(t, got, again)
	})
}

func TestParseB3(t *testing.T) {
	const ids = exampleTrace + "-" + exampleParent
	half := exampleTrace[16:]
	for _, test := range []struct {
		name, header string
		trace        string
		flags        uint8
		ok           bool
	}{
		{"accept", ids + "-1", exampleTrace, 1, true},
		{"deny", ids + "-0", exampleTrace, 0, true},
		{"debug", ids + "-d", exampleTrace, 1, true},
		{"undecided", ids, exampleTrace, 1, true},
		{"with a grandparent", ids + "-0-05e3ac9a4f6e3b90", exampleTrace, 0, true},
		{"64 bits", half + "-" + exampleParent + "-1", "0000000000000000" + half, 1, true},
		{"64 bits undecided", half + "-" + exampleParent, "0000000000000000" + half, 1, true},
		{"deny alone", "0", "", 0, true},
		{"accept alone", "1", "", 1, true},
		{"debug alone", "d", "", 1, true},

		{"empty", "", "", 0, false},
		{"another state alone", "2", "", 0, false},
		{"trace alone", exampleTrace, "", 0, false},
		{"dash at the end", ids + "-", "", 0, false},
		{"another state", ids + "-2", "", 0, false},
		{"long state", ids + "-11", "", 0, false},
		{"upper case state", ids + "-D", "", 0, false},
		{"upper case trace", strings.ToUpper(exampleTrace) + "-" + exampleParent + "-1", "", 0, false},
		{"upper case span", exampleTrace + "-" + strings.ToUpper(exampleParent) + "-1", "", 0, false},
		{"no hex", "x" + ids[1:], "", 0, false},
		{"96 bits", exampleTrace[:24] + "-" + exampleParent + "-1", "", 0, false},
		{"short span", ids[:len(ids)-1] + "-1", "", 0, false},
		{"long span", ids + "0-1", "", 0, false},
		{"zero trace", strings.Repeat("0", 32) + "-" + exampleParent + "-1", "", 0, false},
		{"zero span", exampleTrace + "-" + strings.Repeat("0", 16) + "-1", "", 0, false},
		{"short grandparent", ids + "-1-05e3", "", 0, false},
		{"grandparent of no hex", ids + "-1-05e3ac9a4f6e3b9x", "", 0, false},
		{"more", ids + "-1-05e3ac9a4f6e3b90-1", "", 0, false},
		{"grandparent without a state", ids + "-05e3ac9a4f6e3b90", "", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseB3(test.header)
			require.Equal(t, test.ok, ok)
			if !ok {
				assert.Zero(t, got)
				return
			}
			assert.Equal(t, test.trace, got.trace.String())
			assert.Equal(t, test.trace == "", got.parent.IsEmpty())
			assert.Equal(t, test.flags, got.flags)
		})
	}
}

func FuzzParseB3(f *testing.F) {
	f.Add(exampleTrace + "-" + exampleParent + "-1-05e3ac9a4f6e3b90")
	f.Add(exampleTrace[16:] + "-" + exampleParent)
	f.Add("d")
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := parseB3(header)
		switch {
		case !ok:
			assert.Zero(t, got)
		case got.trace.IsEmpty():
			assert.Len(t, header, 1)
			assert.True(t, got.parent.IsEmpty())
		default:
			assert.False(t, got.parent.IsEmpty())
			trace, rest, _ := strings.Cut(header, "-")
			assert.Equal(t, got.trace.String(), strings.Repeat("0", 32-len(trace))+trace)
			assert.True(t, strings.HasPrefix(rest, got.parent.String()))
			assert.Equal(t, got.flags == 0, strings.HasPrefix(rest[16:], "-0"))
		}
	})
}

func TestPropagatorsTakeTurns(t *testing.T) {
	const b3Trace = "80f198ee56343ba864fe8b2a57d3eff7"
	e := Exchange{
		Role: RoleServer, FlowID: 7, TraceParent: exampleTraceParent, TraceState: "vendor=1",
		TraceBin: traceBin(t, "00"+"00"+binaryTrace+"01"+binaryParent+"0200"), B3: b3Trace + "-05e3ac9a4f6e3b90-0",
	}
	all := []string{PropagatorB3, PropagatorGRPCTraceBin, PropagatorTraceContext}
	for _, test := range []struct {
		name      string
		names     []string
		change    func(*Exchange)
		trace     string // empty: derived
		parent    string
		sampled   bool
		withState bool
	}{
		{"all", all, func(*Exchange) {}, exampleTrace, exampleParent, true, true},
		{"bad traceparent", all, func(e *Exchange) { e.TraceParent = "00" }, binaryTrace, binaryParent, false, false},
		{"no traceparent", all, func(e *Exchange) { e.TraceParent = "" }, binaryTrace, binaryParent, false, false},
		{"b3 alone", all, func(e *Exchange) { e.TraceParent, e.TraceBin = "", "" }, b3Trace, "05e3ac9a4f6e3b90", false, false},
		{"b3 without ids", all, func(e *Exchange) { e.TraceParent, e.TraceBin, e.B3 = "", "", "0" }, "", "", false, false},
		{"b3 not believed", all[1:], func(e *Exchange) { e.TraceParent, e.TraceBin = "", "" }, "", "", true, false},
		{"only b3 believed", all[:1], func(*Exchange) {}, b3Trace, "05e3ac9a4f6e3b90", false, false},
		{"only grpc-trace-bin believed", all[1:2], func(*Exchange) {}, binaryTrace, binaryParent, false, false},
		{"nothing believed", nil, func(*Exchange) {}, "", "", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := noRandomness(t)
			var err error
			i.propagators, err = compilePropagators(test.names)
			require.NoError(t, err)
			derived := i.identify(&Exchange{Role: RoleServer, FlowID: 7})
			changed := e
			test.change(&changed)
			id := i.identify(&changed)
			if test.trace == "" {
				test.trace = derived.trace.String()
			}
			assert.Equal(t, test.trace, id.trace.String())
			assert.Equal(t, test.parent, id.parent.String())
			assert.Equal(t, derived.span, id.span)
			assert.Equal(t, test.sampled, id.sampled)
			assert.Equal(t, test.withState, id.state != "")
		})
	}
}

func TestPropagatorsThatAreNone(t *testing.T) {
	_, err := compilePropagators([]string{PropagatorB3, "jaeger", ""})
	assert.EqualError(t, err, `propagators[1]: must be "tracecontext", "grpc_trace_bin" or "b3", got "jaeger"
propagators[2]: must be "tracecontext", "grpc_trace_bin" or "b3", got ""`)
}

func TestIdentifyAllocatesNothing(t *testing.T) {
	i := noRandomness(t)
	i.propagators.b3 = true
	for name, e := range map[string]*Exchange{
		"none":           {FlowID: 1},
		"traceparent":    {FlowID: 1, TraceParent: exampleTraceParent, TraceState: "a=b"},
		"grpc-trace-bin": {FlowID: 1, TraceBin: traceBin(t, "00"+"00"+binaryTrace+"01"+binaryParent+"0200")},
		"b3":             {FlowID: 1, B3: exampleTrace + "-" + exampleParent + "-1"},
	} {
		assert.Zero(t, testing.AllocsPerRun(100, func() { i.identify(e) }), name)
	}
}

// sequence is a random source that counts.
func sequence() func() uint64 {
	next := uint64(0)
	return func() uint64 { next++; return next }
}

// exampleIdentifier believes the headers of the default configuration.
func exampleIdentifier(random func() uint64) *identifier {
	return &identifier{random: random, propagators: propagators{traceContext: true, grpcTraceBin: true}}
}

func noRandomness(t *testing.T) *identifier {
	return exampleIdentifier(func() uint64 {
		t.Helper()
		t.Error("asked for randomness")
		return 0
	})
}

func TestBothEndsDeriveTheSameTrace(t *testing.T) {
	client := &Exchange{Role: RoleClient, FlowID: 0x1122334455667788, RequestOffset: 4242}
	server := &Exchange{Role: RoleServer, FlowID: client.FlowID, RequestOffset: client.RequestOffset, ClientSeen: true}
	alone := &Exchange{Role: RoleServer, FlowID: client.FlowID, RequestOffset: client.RequestOffset}

	i := noRandomness(t)
	ofClient, ofServer, ofAlone := i.identify(client), i.identify(server), i.identify(alone)
	assert.Equal(t, ofClient.trace, ofServer.trace)
	assert.Equal(t, ofClient.span, ofServer.parent, "the server's parent is the client's span")
	assert.NotEqual(t, ofClient.span, ofServer.span)
	assert.True(t, ofClient.parent.IsEmpty())
	assert.Equal(t, ofServer.trace, ofAlone.trace)
	assert.Equal(t, ofServer.span, ofAlone.span)
	assert.True(t, ofAlone.parent.IsEmpty(), "nobody reports the client's span")
	for _, id := range []identity{ofClient, ofServer, ofAlone} {
		assert.EqualValues(t, flagSampled, id.flags)
		assert.True(t, id.sampled)
	}

	next := *client
	next.RequestOffset++
	assert.NotEqual(t, ofClient.trace, i.identify(&next).trace, "another request on the connection is another trace")
	assert.NotEqual(t, ofClient.span, i.identify(&next).span)
}

// What is derived is a protocol between hosts that may run different versions.
func TestDerivationIsFixed(t *testing.T) {
	id := noRandomness(t).identify(&Exchange{
		Role: RoleServer, FlowID: 0x1122334455667788, RequestOffset: 4242, ClientSeen: true,
	})
	assert.Equal(t, "11b8fd36844c7c1ea0a849eed43b538e", id.trace.String())
	assert.Equal(t, "6bfd01198e6d997a", id.span.String())
	assert.Equal(t, "afd9cc6848969600", id.parent.String())
}

func TestDerivedIDsAreWellSpread(t *testing.T) {
	const flows, offsets = 200, 50
	seen := map[uint64]bool{}
	var ones [64]int
	for flow := range uint64(flows) {
		for offset := range uint32(offsets) {
			for _, purpose := range []uint64{purposeTraceHigh, purposeTraceLow, purposeServerSpan, purposeClientSpan} {
				value := derive(flow+1, offset, purpose)
				seen[value] = true
				for bit := range ones {
					ones[bit] += int(value >> bit & 1)
				}
			}
		}
	}
	const total = flows * offsets * 4
	assert.Len(t, seen, total, "no two are the same")
	for bit, count := range ones {
		assert.InDelta(t, total/2, count, total*0.02, "bit %d", bit)
	}

	// One bit of what names the exchange changes half of the id.
	changed, cases := 0, 0
	for bit := range 64 {
		changed += bits.OnesCount64(derive(77, 99, purposeTraceLow) ^ derive(77^1<<bit, 99, purposeTraceLow))
		cases++
	}
	for bit := range 32 {
		changed += bits.OnesCount64(derive(77, 99, purposeTraceLow) ^ derive(77, 99^1<<bit, purposeTraceLow))
		cases++
	}
	assert.InDelta(t, 32, float64(changed)/float64(cases), 1.5)
}

func TestATraceParentDecides(t *testing.T) {
	for _, test := range []struct {
		name  string
		role  Role
		seen  bool
		flow  uint64
		flags string
	}{
		{"server", RoleServer, false, 7, "01"},
		{"server whose client is seen", RoleServer, true, 7, "01"},
		{"client", RoleClient, false, 7, "01"},
		{"server of an unknown flow", RoleServer, false, 0, "01"},
		{"not sampled", RoleServer, false, 7, "00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := exampleIdentifier(sequence())
			id := i.identify(&Exchange{
				Role: test.role, FlowID: test.flow, ClientSeen: test.seen,
				TraceParent: "00-" + exampleTrace + "-" + exampleParent + "-" + test.flags, TraceState: "vendor=1",
			})
			assert.Equal(t, exampleTrace, id.trace.String())
			assert.Equal(t, exampleParent, id.parent.String())
			assert.Equal(t, test.flags, hex.EncodeToString([]byte{id.flags}))
			assert.Equal(t, test.flags == "01", id.sampled)
			assert.Equal(t, "vendor=1", id.state)
			assert.False(t, id.span.IsEmpty())
		})
	}
}

func TestABadTraceParentIsNotThere(t *testing.T) {
	with := &Exchange{Role: RoleServer, FlowID: 7, TraceParent: exampleTraceParent + "x", TraceState: "vendor=1"}
	without := &Exchange{Role: RoleServer, FlowID: 7}
	assert.Equal(t, noRandomness(t).identify(without), noRandomness(t).identify(with))
	assert.Empty(t, noRandomness(t).identify(&Exchange{FlowID: 7, TraceState: "vendor=1"}).state, "of no trace")
}

func TestTraceStateIsPassedOn(t *testing.T) {
	for state, want := range map[string]bool{
		"":                               true,
		"a=1,b=2":                        true,
		"a=1, \tb=2":                     true,
		"a=" + strings.Repeat("x", 510):  true,
		"a=" + strings.Repeat("x", 511):  false,
		"a=\x00":                         false,
		"a=\xff":                         false,
		"a=ü":                            false,
		"a=" + strings.Repeat("x", 4000): false,
	} {
		id := noRandomness(t).identify(&Exchange{FlowID: 1, TraceParent: exampleTraceParent, TraceState: state})
		if want {
			assert.Equal(t, state, id.state)
		} else {
			assert.Empty(t, id.state)
		}
	}
}

func TestAnUnknownFlowHasRandomIDs(t *testing.T) {
	i := exampleIdentifier(sequence())
	first := i.identify(&Exchange{Role: RoleServer, ClientSeen: true})
	second := i.identify(&Exchange{Role: RoleServer, ClientSeen: true})
	assert.Equal(t, pcommon.SpanID{7: 1}, first.span)
	assert.Equal(t, pcommon.TraceID{7: 2, 15: 3}, first.trace)
	assert.NotEqual(t, first.trace, second.trace)
	assert.True(t, first.parent.IsEmpty(), "its client's span cannot be known")
}

func TestIDsAreNeverZero(t *testing.T) {
	i := exampleIdentifier(func() uint64 { return 0 })
	id := i.identify(&Exchange{})
	assert.False(t, id.trace.IsEmpty())
	assert.False(t, id.span.IsEmpty())

	// The flow whose hash is zero: mix is a bijection that keeps zero.
	id = i.identify(&Exchange{Role: RoleServer, FlowID: purposeServerSpan})
	assert.Zero(t, derive(purposeServerSpan, 0, purposeServerSpan))
	assert.Equal(t, pcommon.SpanID{7: 1}, id.span)
}

func BenchmarkIdentify(b *testing.B) {
	for name, header := range map[string]string{"derived": "", "traceparent": exampleTraceParent} {
		b.Run(name, func(b *testing.B) {
			i := exampleIdentifier(sequence())
			e := &Exchange{Role: RoleServer, FlowID: 7, RequestOffset: 9, ClientSeen: true, TraceParent: header}
			b.ReportAllocs()
			for b.Loop() {
				i.identify(e)
			}
		})
	}
}

func TestAnExchangeIsInTheTraceOfItsOrigin(t *testing.T) {
	i := noRandomness(t)
	served := i.identify(&Exchange{Role: RoleServer, FlowID: 1, TraceParent: exampleTraceParent, TraceState: "vendor=1"})
	served.threshold = 77
	client := &Exchange{Role: RoleClient, FlowID: 2, RequestOffset: 5, origin: served}
	sent := i.identify(client)
	assert.Equal(t, exampleTrace, sent.trace.String())
	assert.Equal(t, served.span, sent.parent)
	assert.Equal(t, "vendor=1", sent.state)
	assert.EqualValues(t, flagSampled, sent.flags)
	assert.EqualValues(t, 77, sent.threshold)
	assert.Equal(t, i.identify(&Exchange{Role: RoleClient, FlowID: 2, RequestOffset: 5}).span, sent.span, "as without")

	received := i.identify(&Exchange{Role: RoleServer, FlowID: 2, RequestOffset: 5, ClientSeen: true, origin: sent})
	assert.Equal(t, sent.trace, received.trace)
	assert.Equal(t, sent.span, received.parent)

	// What the application says of itself comes first.
	client.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	sent = i.identify(client)
	assert.Equal(t, "0af7651916cd43dd8448eb211c80319c", sent.trace.String())
	assert.Equal(t, "b7ad6b7169203331", sent.parent.String())
	assert.Zero(t, sent.flags)

	// So does that it is not sampled, where that is all that it says.
	i.propagators.b3 = true
	sent = i.identify(&Exchange{Role: RoleClient, FlowID: 2, B3: "0", origin: served})
	assert.Equal(t, served.trace, sent.trace)
	assert.Zero(t, sent.flags)
}
