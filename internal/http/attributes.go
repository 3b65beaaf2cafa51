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
	// follows are the attributes that are expected: those that a former span had. As long as these are the keys, what is
	// put goes to them at once and nothing is listed. nil: none are expected, or something else has come.
	follows *attributeShape
	strayed bool // something else has come, so the list is not whole
}

// expect empties the list and has it follow a shape; nil: none.
func (l *attributeList) expect(shape *attributeShape) {
	l.length, l.follows, l.strayed = 0, shape, false
}

// put adds an attribute.
func (l *attributeList) put(key, text string, bits uint64, kind attributeKind) {
	if l.follows != nil {
		l.strayed = !l.follows.take(l.length, key, text, bits, kind)
		if l.length++; l.strayed {
			l.follows = nil
		}
		return
	}
	if l.strayed {
		return
	}
	a := l.next(key, kind)
	a.text, a.bits = text, bits
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

func (l *attributeList) putStr(key, text string)  { l.put(key, text, 0, kindText) }
func (l *attributeList) putList(key, text string) { l.put(key, text, 0, kindTextList) }
func (l *attributeList) putTexts(key string, texts []string) {
	l.put(key, joinTexts(texts), 0, kindTexts)
}
func (l *attributeList) putTrue(key string)         { l.put(key, "", 0, kindTrue) }
func (l *attributeList) putInt(key string, n int64) { l.put(key, "", uint64(n), kindInteger) }
func (l *attributeList) putDouble(key string, n float64) {
	l.put(key, "", math.Float64bits(n), kindNumber)
}

// putKnown leaves an empty text out, and takes one that may be sent.
func (l *attributeList) putKnown(key, text string) {
	if text != "" {
		l.putStr(key, text)
	}
}

// putText leaves an empty text out.
func (l *attributeList) putText(key, text string) {
	switch {
	case text == "":
	case l.expects(text):
		l.putStr(key, text)
	default:
		l.putStr(key, validText(text))
	}
}

// expects says whether the next attribute is expected to say the text, which may then be sent.
func (l *attributeList) expects(text string) bool {
	if l.follows == nil || l.length >= len(l.follows.last) {
		return false
	}
	last := l.follows.last[l.length].text
	return len(last) == len(text) && unsafe.StringData(last) == unsafe.StringData(text)
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

// take has the attribute at a place say something. It says false where that is not the key of the attribute there.
func (s *attributeShape) take(at int, key, text string, bits uint64, kind attributeKind) bool {
	if at >= len(s.last) {
		return false
	}
	last := &s.last[at]
	if !sameText(last.key, key) {
		return false
	}
	// A list can be changed in place, so each span has its own.
	if last.bits != bits || last.kind != kind || !sameText(last.text, text) || kind == kindTextList || kind == kindTexts {
		last.text, last.bits, last.kind = text, bits, kind
		last.set(s.values[at]) // a new value: who has the old one keeps it
	}
	return true
}

// write makes the attributes of a span of what the shape has.
func (s *attributeShape) write(target pcommon.Map) {
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

// write makes the attributes of a span of a list.
func (s *attributeShapes) write(l *attributeList, target pcommon.Map) {
	if s.apart {
		l.write(target)
		return
	}
	s.find(l).write(target)
}

// find gives the shape that has the keys of a list, with what the list says.
func (s *attributeShapes) find(l *attributeList) *attributeShape {
	for _, shape := range s.shapes {
		if shape.fits(l) {
			for i := range l.length {
				a := &l.attributes[i]
				shape.take(i, a.key, a.text, a.bits, a.kind)
			}
			return shape
		}
	}
	shape := newAttributeShape(l)
	if len(s.shapes) < maxShapes {
		s.shapes = append(s.shapes, shape)
	} else {
		s.shapes[s.next] = shape
		s.next = (s.next + 1) % maxShapes
	}
	return shape
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
		shapes := attributeShapes{}
		first, second, third := pcommon.NewMap(), pcommon.NewMap(), pcommon.NewMap()
		shapes.write(&list, first)
		shapes.write(&list, second)
		change(first)
		shapes.write(&list, third)
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
