//go:build linux

package http

import (
	"math"
	"strings"
	"unicode/utf8"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/xpdata"
)

const (
	// maxAttributes is more than a span has.
	maxAttributes = 48
	// maxShapes is how many sets of keys are remembered: spans of one service have a few.
	maxShapes = 16
)

// attributeKind is the type of an attribute.
type attributeKind uint8

const (
	kindText attributeKind = iota
	kindInteger
	kindNumber
	kindTextList // of one element
	kindTexts    // a list of what joinTexts has joined
	kindTrue
)

// textSeparator is between the elements of a list.
const textSeparator = "\x00"

// joinTexts makes the text of a list of several elements, none of which has the separator in it.
func joinTexts(texts []string) string {
	return validText(strings.Join(texts, textSeparator))
}

// attribute is one attribute of a span.
type attribute struct {
	key  string
	text string
	bits uint64 // of an integer or a number
	kind attributeKind
}

// says tells whether two attributes of the same key say the same.
func (a *attribute) says(b *attribute) bool {
	return a.bits == b.bits && a.kind == b.kind && sameText(a.text, b.text)
}

// sameText compares texts that mostly are the same string, so that their bytes need not be looked at.
func sameText(a, b string) bool {
	return len(a) == len(b) && (unsafe.StringData(a) == unsafe.StringData(b) || a == b)
}

func (a *attribute) set(value pcommon.Value) {
	switch a.kind {
	case kindText:
		value.SetStr(a.text)
	case kindInteger:
		value.SetInt(int64(a.bits))
	case kindNumber:
		value.SetDouble(math.Float64frombits(a.bits))
	case kindTextList:
		value.SetEmptySlice().AppendEmpty().SetStr(a.text)
	case kindTexts:
		list := value.SetEmptySlice()
		for text := range strings.SplitSeq(a.text, textSeparator) {
			list.AppendEmpty().SetStr(text)
		}
	case kindTrue:
		value.SetBool(true)
	}
}

// attributeList is the attributes of one span, each key once.
type attributeList struct {
	attributes [maxAttributes]attribute
	length     int
}

// next gives the place of the next attribute.
func (l *attributeList) next(key string, kind attributeKind) *attribute {
	if l.length == len(l.attributes) {
		l.length-- // never: a test has a span with everything
	}
	a := &l.attributes[l.length]
	l.length++
	*a = attribute{key: key, kind: kind} // the list may have been used before
	return a
}

func (l *attributeList) putStr(key, text string)  { l.next(key, kindText).text = text }
func (l *attributeList) putList(key, text string) { l.next(key, kindTextList).text = text }
func (l *attributeList) putTexts(key string, texts []string) {
	l.next(key, kindTexts).text = joinTexts(texts)
}
func (l *attributeList) putTrue(key string)         { l.next(key, kindTrue) }
func (l *attributeList) putInt(key string, n int64) { l.next(key, kindInteger).bits = uint64(n) }
func (l *attributeList) putDouble(k string, n float64) {
	l.next(k, kindNumber).bits = math.Float64bits(n)
}

// putKnown leaves an empty text out, and takes one that may be sent.
func (l *attributeList) putKnown(key, text string) {
	if text != "" {
		l.putStr(key, text)
	}
}

// putText leaves an empty text out.
func (l *attributeList) putText(key, text string) {
	if text != "" {
		l.putStr(key, validText(text))
	}
}

// attributeShape is the attributes of the last span that had the same keys, in the same order.
//
// Most attributes of a span are those of the span before. So spans share their values: each has a map of its own, in which
// only the values are new that changed. That takes a third of the time that to make all of them takes.
type attributeShape struct {
	last   []attribute
	whole  xpdata.MapBuilder
	values []pcommon.Value // of whole
}

func newAttributeShape(l *attributeList) *attributeShape {
	s := &attributeShape{last: make([]attribute, l.length), values: make([]pcommon.Value, l.length)}
	s.whole.EnsureCapacity(l.length) // values point into it
	for i := range s.last {
		s.last[i] = l.attributes[i]
		s.values[i] = s.whole.AppendEmpty(s.last[i].key)
		s.last[i].set(s.values[i])
	}
	return s
}

func (s *attributeShape) fits(l *attributeList) bool {
	if len(s.last) != l.length {
		return false
	}
	for i := range s.last {
		if !sameText(s.last[i].key, l.attributes[i].key) {
			return false
		}
	}
	return true
}

// write makes the attributes of a span.
func (s *attributeShape) write(l *attributeList, target pcommon.Map) {
	for i := range s.last {
		// A list can be changed in place, so each span has its own.
		if now := &l.attributes[i]; !s.last[i].says(now) || now.kind == kindTextList || now.kind == kindTexts {
			now.set(s.values[i]) // a new value: who has the old one keeps it
			s.last[i] = *now
		}
	}
	pairs := duplicate(&s.whole)
	pairs.EnsureCapacity(len(s.last) + 1) // more than there is: so they move to a place of their own
	pairs.UnsafeIntoMap(target)
}

// duplicate copies what must not be copied as a rule: a builder has a count of references, which is of no use before it has
// become a map.
func duplicate[builder any](original *builder) builder { return *original }

// attributeShapes writes attributes. It is not safe for concurrent use.
type attributeShapes struct {
	// apart says that spans do not share values: see valuesCanBeShared.
	apart  bool
	shapes []*attributeShape
	next   int // the one that makes room
}

func (s *attributeShapes) write(l *attributeList, target pcommon.Map) {
	if s.apart {
		l.write(target)
		return
	}
	for _, shape := range s.shapes {
		if shape.fits(l) {
			shape.write(l, target)
			return
		}
	}
	shape := newAttributeShape(l)
	if len(s.shapes) < maxShapes {
		s.shapes = append(s.shapes, shape)
	} else {
		s.shapes[s.next] = shape
		s.next = (s.next + 1) % maxShapes
	}
	shape.write(l, target)
}

// write makes attributes that share nothing.
func (l *attributeList) write(target pcommon.Map) {
	var pairs xpdata.MapBuilder // pcommon.Map itself would look for each key among all that are there
	pairs.EnsureCapacity(l.length)
	for i := range l.length {
		a := &l.attributes[i]
		a.set(pairs.AppendEmpty(a.key))
	}
	pairs.UnsafeIntoMap(target)
}

// valuesCanBeShared says whether maps may share values: nothing that is done to one of them is seen in another. That is so
// as long as pdata makes a new value where one is set. It is not promised, and not so with the feature gate
// pdata.useProtoPooling, where values are used again. So it is tried with everything that changes a value.
func valuesCanBeShared() bool {
	var list attributeList
	list.putStr("text", "text")
	list.putInt("integer", 1)
	list.putDouble("number", 1)
	other := pcommon.NewMap()
	list.write(other)
	values := func(change func(pcommon.Value)) func(pcommon.Map) {
		return func(m pcommon.Map) {
			for _, value := range m.All() {
				change(value)
			}
		}
	}
	keys := func(change func(pcommon.Map, string)) func(pcommon.Map) {
		return func(m pcommon.Map) {
			for i := range list.length {
				change(m, list.attributes[i].key)
			}
		}
	}
	for _, change := range []func(pcommon.Map){
		values(func(v pcommon.Value) { v.SetStr("changed") }),
		values(func(v pcommon.Value) { v.SetInt(2) }),
		values(func(v pcommon.Value) { v.SetDouble(2) }),
		values(func(v pcommon.Value) { v.SetBool(true) }),
		values(func(v pcommon.Value) { v.SetEmptyBytes().FromRaw([]byte{2}) }),
		values(func(v pcommon.Value) { v.SetEmptySlice().AppendEmpty().SetInt(2) }),
		values(func(v pcommon.Value) { v.SetEmptyMap().PutInt("changed", 2) }),
		values(func(v pcommon.Value) { pcommon.NewValueInt(2).CopyTo(v) }),
		values(func(v pcommon.Value) { pcommon.NewValueInt(2).MoveTo(v) }),
		values(func(v pcommon.Value) { v.MoveTo(pcommon.NewValueEmpty()) }),
		keys(func(m pcommon.Map, key string) { m.PutStr(key, "changed") }),
		keys(func(m pcommon.Map, key string) { m.PutInt(key, 2) }),
		keys(func(m pcommon.Map, key string) { m.PutDouble(key, 2) }),
		keys(func(m pcommon.Map, key string) { m.PutEmpty(key) }),
		keys(func(m pcommon.Map, key string) { m.Remove(key) }),
		func(m pcommon.Map) { m.RemoveIf(func(string, pcommon.Value) bool { return true }) },
		func(m pcommon.Map) { m.Clear() },
		func(m pcommon.Map) { pcommon.NewMap().CopyTo(m) },
		func(m pcommon.Map) { other.CopyTo(m) },
	} {
		// All is tried on the first one alone, so that nothing is given back twice where values are used again.
		shape := newAttributeShape(&list)
		first, second, third := pcommon.NewMap(), pcommon.NewMap(), pcommon.NewMap()
		shape.write(&list, first)
		shape.write(&list, second)
		change(first)
		shape.write(&list, third)
		if !second.Equal(other) || !third.Equal(other) {
			return false
		}
	}
	return true
}

// validText makes bytes from the network a string that may be sent: in OTLP a string is UTF-8, and a receiver may
// refuse the whole batch for one that is not.
func validText(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
