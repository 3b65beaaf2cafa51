//go:build linux

package http

import (
	"math"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

const (
	// maxAttributes is more than a span has.
	maxAttributes = 32
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
)

// attribute is one attribute of a span.
type attribute struct {
	key  string
	text string
	bits uint64 // of an integer or a number
	kind attributeKind
}

// says tells whether two attributes of the same key say the same.
func (a *attribute) says(b *attribute) bool {
	return a.bits == b.bits && a.kind == b.kind && a.text == b.text
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
	}
}

// attributeList is the attributes of one span, each key once. It lives on the stack.
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
	a.key, a.kind = key, kind
	return a
}

func (l *attributeList) putStr(key, text string)    { l.next(key, kindText).text = text }
func (l *attributeList) putList(key, text string)   { l.next(key, kindTextList).text = text }
func (l *attributeList) putInt(key string, n int64) { l.next(key, kindInteger).bits = uint64(n) }
func (l *attributeList) putDouble(k string, n float64) {
	l.next(k, kindNumber).bits = math.Float64bits(n)
}

// putText leaves an empty text out.
func (l *attributeList) putText(key, text string) {
	if text != "" {
		l.putStr(key, validText(text))
	}
}

// attributeShape is the attributes of the last span that had the same keys, in the same order.
//
// To put attributes one by one into a pcommon.Map looks for each key among all that are there. To copy a whole map does not,
// and most attributes of a span are those of the span before.
type attributeShape struct {
	last   []attribute
	whole  pcommon.Map
	values []pcommon.Value // of whole
}

func newAttributeShape(l *attributeList) *attributeShape {
	s := &attributeShape{whole: pcommon.NewMap()}
	s.whole.EnsureCapacity(l.length) // values point into it
	for i := range l.length {
		value := s.whole.PutEmpty(l.attributes[i].key)
		l.attributes[i].set(value)
		s.values = append(s.values, value)
		s.last = append(s.last, l.attributes[i])
	}
	return s
}

func (s *attributeShape) fits(l *attributeList) bool {
	if len(s.last) != l.length {
		return false
	}
	for i := range s.last {
		if s.last[i].key != l.attributes[i].key {
			return false
		}
	}
	return true
}

// write makes the attributes of a span.
func (s *attributeShape) write(l *attributeList, target pcommon.Map) {
	for i := range s.last {
		if now := &l.attributes[i]; !s.last[i].says(now) {
			now.set(s.values[i])
			s.last[i] = *now
		}
	}
	s.whole.CopyTo(target)
}

// attributeShapes writes attributes. It is not safe for concurrent use.
type attributeShapes struct {
	shapes []*attributeShape
	next   int // the one that makes room
}

func (s *attributeShapes) write(l *attributeList, target pcommon.Map) {
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

// validText makes bytes from the network a string that may be sent: in OTLP a string is UTF-8, and a receiver may
// refuse the whole batch for one that is not.
func validText(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
