//go:build linux

package http

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/featuregate"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// rawOf is what a list of attributes says.
func rawOf(l *attributeList) map[string]any {
	raw := map[string]any{}
	for i := range l.length {
		switch a := &l.attributes[i]; a.kind {
		case kindText:
			raw[a.key] = a.text
		case kindInteger:
			raw[a.key] = int64(a.bits)
		case kindNumber:
			raw[a.key] = math.Float64frombits(a.bits)
		case kindTextList:
			raw[a.key] = []any{a.text}
		}
	}
	return raw
}

// However many sets of keys take turns, each span has its own attributes, and keeps them.
func TestAttributeShapes(t *testing.T) {
	const keys = 8
	random := rand.New(rand.NewPCG(1, 2))
	var shapes attributeShapes
	var written []pcommon.Map
	var want []map[string]any
	for range 5000 {
		var list attributeList
		present := random.IntN(1 << keys)
		for key := range keys {
			if present>>key&1 == 0 {
				continue
			}
			name := fmt.Sprint(key)
			switch kind := attributeKind(random.IntN(4)); kind { // also one key with several kinds
			case kindText, kindTextList:
				list.next(name, kind).text = fmt.Sprint(random.IntN(3))
			case kindInteger:
				list.putInt(name, random.Int64N(3))
			case kindNumber:
				list.putDouble(name, float64(random.IntN(3)))
			}
		}
		attributes := pcommon.NewMap()
		shapes.write(&list, attributes)
		written, want = append(written, attributes), append(want, rawOf(&list))
	}
	for i := range written {
		require.Equal(t, want[i], written[i].AsRaw())
	}
	assert.Len(t, shapes.shapes, maxShapes)
}

// A span says of an exchange what one says that was made with nothing before it, whatever came before it.
func TestSpansFollowExpectedAttributes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	wall := func(ns uint64) time.Time { return time.Unix(0, int64(ns)) }
	shared := newSpans(exampleScope)
	var want []map[string]any
	for range 3000 {
		role := RoleServer
		if random.IntN(2) == 0 {
			role = RoleClient
		}
		e := exampleExchange(t, role, func(e *Exchange) {
			if random.IntN(3) == 0 {
				e.UserAgent = ""
			}
			if random.IntN(3) == 0 {
				e.UserAgent = "not \xff UTF-8"
			}
			if random.IntN(4) == 0 {
				e.RequestID = fmt.Sprint(random.IntN(3))
			}
			if random.IntN(4) == 0 {
				e.Status, e.ErrorType = 0, "reset"
			}
			e.GRPC = random.IntN(5) == 0
			e.Target = fmt.Sprintf("/%d?q=%d", random.IntN(2), random.IntN(2))
			e.Retransmits = random.Uint32N(3)
			e.Owner = &workload.Workload{PID: random.Uint32N(3)}
		})
		alone := newSpans(exampleScope)
		require.True(t, alone.add(e, "/route", identity{}, wall))
		want = append(want, alone.take().ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes().AsRaw())
		require.True(t, shared.add(e, "/route", identity{}, wall))
	}
	got := 0
	for _, resource := range shared.take().ResourceSpans().All() {
		for _, span := range resource.ScopeSpans().At(0).Spans().All() { // one resource: no workload has attributes of its own
			require.Equal(t, want[got], span.Attributes().AsRaw())
			got++
		}
	}
	assert.Equal(t, len(want), got)
}

// What a consumer does to a span is not seen in the next one.
func TestAttributeShapesShareNothing(t *testing.T) {
	var shapes attributeShapes
	var list attributeList
	list.putStr("a", "x")
	list.putList("b", "y")
	first, second := pcommon.NewMap(), pcommon.NewMap()
	shapes.write(&list, first)
	want := first.AsRaw()
	first.PutStr("a", "changed")
	value, _ := first.Get("b")
	value.Slice().At(0).SetStr("changed")
	first.PutStr("c", "more")
	shapes.write(&list, second)
	assert.Equal(t, want, second.AsRaw())
}

// With values that are shared or not, each span has its own attributes.
func TestAttributesApart(t *testing.T) {
	var list attributeList
	list.putStr("a", "x")
	list.putInt("b", 1)
	list.putDouble("c", 2)
	list.putList("d", "y")
	for _, apart := range []bool{false, true} {
		shapes := attributeShapes{apart: apart}
		var written []pcommon.Map
		for range 3 {
			attributes := pcommon.NewMap()
			shapes.write(&list, attributes)
			written = append(written, attributes)
		}
		written[1].RemoveIf(func(_ string, value pcommon.Value) bool {
			if value.Type() == pcommon.ValueTypeSlice {
				value.Slice().At(0).SetStr("changed")
			} else {
				value.SetStr("changed")
			}
			return false
		})
		assert.Equal(t, rawOf(&list), written[0].AsRaw(), apart)
		assert.NotEqual(t, rawOf(&list), written[1].AsRaw(), apart)
		assert.Equal(t, rawOf(&list), written[2].AsRaw(), apart)
	}
}

// Values are shared unless pdata uses them again.
func TestValuesCanBeShared(t *testing.T) {
	assert.True(t, valuesCanBeShared())
	assert.False(t, newSpans(nil).shapes.apart)

	const gate = "pdata.useProtoPooling"
	require.NoError(t, featuregate.GlobalRegistry().Set(gate, true))
	t.Cleanup(func() { require.NoError(t, featuregate.GlobalRegistry().Set(gate, false)) })
	assert.False(t, valuesCanBeShared())
	assert.True(t, newSpans(nil).shapes.apart)
}

// A list has room for a span with everything.
func TestAttributeListHasRoom(t *testing.T) {
	for _, role := range []Role{RoleServer, RoleClient} {
		for _, grpc := range []bool{false, true} {
			e := exampleExchange(t, role, func(e *Exchange) {
				e.Method, e.ErrorType, e.RequestID, e.GRPC, e.Status = "STRANGE", "reset", "id", grpc, 500
				e.Owner = &workload.Workload{PID: 1}
				e.GenAI = exampleChat(t, RoleClient).GenAI
			})
			var list attributeList
			e.describe(&list, methodOther, addressTexts{})
			assert.Less(t, list.length, maxAttributes)
		}
	}
}

func TestAddressTexts(t *testing.T) {
	texts := addressTexts{}
	for i := range 3 * maxAddressTexts {
		address := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		assert.Equal(t, address.String(), texts.text(address))
		assert.Equal(t, address.String(), texts.text(address))
		assert.LessOrEqual(t, len(texts), maxAddressTexts)
	}
	mapped := netip.MustParseAddr("::ffff:10.0.0.1")
	assert.Equal(t, mapped.String(), texts.text(mapped), "another one than 10.0.0.1")
}
