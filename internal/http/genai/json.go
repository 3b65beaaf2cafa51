package genai

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
)

// result says how far a scanner came.
type result uint8

const (
	whole     result = iota // what was looked for is there
	cut                     // the bytes end within it
	malformed               // it is no JSON (RFC 8259)
)

// maxDepth bounds how deep values may be nested: as many levels as fit in the bits of a brackets.
const maxDepth = 64

// brackets are those that are open, the innermost in the lowest bit: 1 is a brace.
type brackets struct {
	kinds uint64
	depth int
}

func (b *brackets) open(brace bool) bool {
	if b.depth == maxDepth {
		return false
	}
	b.depth++
	b.kinds <<= 1
	if brace {
		b.kinds |= 1
	}
	return true
}

func (b *brackets) close(brace bool) bool {
	if b.depth == 0 || b.kinds&1 == 1 != brace {
		return false
	}
	b.depth--
	b.kinds >>= 1
	return true
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// isScalar says whether a byte may be of a number, true, false or null.
func isScalar(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b == '-' || b == '+' || b == '.' || b == 'E'
}

// scanner goes through JSON from a place that is known not to be within a string.
type scanner struct {
	data []byte
	at   int
}

func (s *scanner) space() {
	for s.at < len(s.data) && isSpace(s.data[s.at]) {
		s.at++
	}
}

// next is the next byte that is no space, without taking it; ok is false at the end.
func (s *scanner) next() (b byte, ok bool) {
	s.space()
	if s.at == len(s.data) {
		return 0, false
	}
	return s.data[s.at], true
}

// take takes the next byte that is no space if it is the one.
func (s *scanner) take(want byte) result {
	switch b, ok := s.next(); {
	case !ok:
		return cut
	case b != want:
		return malformed
	}
	s.at++
	return whole
}

// quoted takes a string and gives what is between its quotes, as it is written.
func (s *scanner) quoted() ([]byte, result) {
	if r := s.take('"'); r != whole {
		return nil, r
	}
	start := s.at
	for ; s.at < len(s.data); s.at++ {
		switch b := s.data[s.at]; {
		case b == '"':
			s.at++
			return s.data[start : s.at-1], whole
		case b < ' ':
			return nil, malformed // it has to be escaped, so these bytes are of something else, too
		case b == '\\':
			s.at++ // the digits of \u are no quotes
		}
	}
	s.at = len(s.data)
	return nil, cut
}

// scalar takes a number, true, false or null. Only what comes after tells where it ends.
func (s *scanner) scalar() ([]byte, result) {
	s.space()
	start := s.at
	for s.at < len(s.data) && isScalar(s.data[s.at]) {
		s.at++
	}
	switch {
	case s.at == len(s.data):
		return nil, cut
	case s.at == start:
		return nil, malformed
	}
	return s.data[start:s.at], whole
}

// skip takes a value of any kind.
func (s *scanner) skip() result {
	var open brackets
	for {
		b, ok := s.next()
		if !ok {
			return cut
		}
		r := whole
		switch b {
		case '{', '[':
			s.at++
			if !open.open(b == '{') {
				return malformed
			}
		case '}', ']':
			s.at++
			if !open.close(b == '}') {
				return malformed
			}
		case '"':
			_, r = s.quoted()
		case ',', ':':
			if open.depth == 0 {
				return malformed
			}
			s.at++
		default:
			_, r = s.scalar()
		}
		if r != whole || open.depth == 0 {
			return r
		}
	}
}

// object takes an object. member is called with each key and has to take its value; the key is as it is written, so that
// one with escapes is none that is looked for. What is no object is taken, and has no members.
func (s *scanner) object(member func(key []byte) result) result {
	if b, ok := s.next(); ok && b != '{' {
		return s.skip()
	}
	r := s.take('{')
	if b, ok := s.next(); r == whole && ok && b == '}' {
		s.at++
		return whole
	}
	for r == whole {
		var key []byte
		if key, r = s.quoted(); r != whole {
			return r
		}
		if r = s.take(':'); r != whole {
			return r
		}
		if r = member(key); r != whole {
			return r
		}
		if r = s.take(','); r == malformed {
			return s.take('}')
		}
	}
	return r
}

// array takes an array. element is called for each element, which it has to take. What is no array is taken, and has no
// elements.
func (s *scanner) array(element func() result) result {
	if b, ok := s.next(); ok && b != '[' {
		return s.skip()
	}
	r := s.take('[')
	if b, ok := s.next(); r == whole && ok && b == ']' {
		s.at++
		return whole
	}
	for r == whole {
		if r = element(); r != whole {
			return r
		}
		if r = s.take(','); r == malformed {
			return s.take(']')
		}
	}
	return r
}

// text takes a value. Where it is a string of at most limit bytes it is copied to target, which else is empty.
func (s *scanner) text(target *string, limit int) result {
	*target = ""
	if b, ok := s.next(); ok && b != '"' {
		return s.skip()
	}
	written, r := s.quoted()
	if r != whole || len(written) > limit {
		return r
	}
	if bytes.IndexByte(written, '\\') < 0 {
		*target = string(written)
		return whole
	}
	var value string
	if json.Unmarshal(s.data[s.at-len(written)-2:s.at], &value) == nil {
		*target = value
	}
	return whole
}

// count takes a value. Where it is an integer that is not negative it is written to target, which else is -1.
func (s *scanner) count(target *int64) result {
	*target = -1
	if b, ok := s.next(); ok && (b < '0' || b > '9') {
		return s.skip()
	}
	written, r := s.scalar()
	if r != whole {
		return r
	}
	if value, err := strconv.ParseInt(string(written), 10, 64); err == nil {
		*target = value
	}
	return whole
}

// truth takes a value. Where it is true or false it is written to target, which else is unknown.
func (s *scanner) truth(target *truth) result {
	*target = unknown
	if b, ok := s.next(); ok && b != 't' && b != 'f' {
		return s.skip()
	}
	written, r := s.scalar()
	if r != whole {
		return r
	}
	switch string(written) {
	case "true":
		*target = yes
	case "false":
		*target = no
	}
	return whole
}

// truth is a boolean that may be unknown.
type truth uint8

const (
	unknown truth = iota
	yes
	no
)

// reverse goes back through JSON from a place that is known not to be within a string. Going back is as certain as going
// forward: within a string every quote has an odd number of backslashes before it, and the one that begins it has none.
type reverse struct {
	data []byte // what has not been gone through yet
}

func (r *reverse) space() {
	for len(r.data) > 0 && isSpace(r.data[len(r.data)-1]) {
		r.data = r.data[:len(r.data)-1]
	}
}

// before is the byte before, which is no space, without taking it; ok is false at the beginning.
func (r *reverse) before() (b byte, ok bool) {
	r.space()
	if len(r.data) == 0 {
		return 0, false
	}
	return r.data[len(r.data)-1], true
}

func (r *reverse) take(want byte) result {
	switch b, ok := r.before(); {
	case !ok:
		return cut
	case b != want:
		return malformed
	}
	r.data = r.data[:len(r.data)-1]
	return whole
}

// quoted takes a string.
func (r *reverse) quoted() result {
	if result := r.take('"'); result != whole {
		return result
	}
	for at := len(r.data) - 1; at > 0; at-- {
		switch b := r.data[at]; {
		case b < ' ':
			return malformed
		case b != '"':
			continue
		}
		backslash := at
		for backslash > 0 && r.data[backslash-1] == '\\' {
			backslash--
		}
		switch {
		case backslash == 0:
			return cut // there may be more of them
		case backslash == at:
			r.data = r.data[:at]
			return whole
		case (at-backslash)%2 == 0:
			return malformed
		}
		at = backslash
	}
	return cut // also where there is a quote at 0: a backslash may stand before it
}

// skip takes a value of any kind.
func (r *reverse) skip() result {
	var open brackets
	for {
		b, ok := r.before()
		if !ok {
			return cut
		}
		switch {
		case b == '"':
			if result := r.quoted(); result != whole {
				return result
			}
		case b == '}' || b == ']':
			r.data = r.data[:len(r.data)-1]
			if !open.open(b == '}') {
				return malformed
			}
		case b == '{' || b == '[':
			r.data = r.data[:len(r.data)-1]
			if !open.close(b == '{') {
				return malformed
			}
		case (b == ',' || b == ':') && open.depth > 0:
			r.data = r.data[:len(r.data)-1]
		case isScalar(b):
			for len(r.data) > 0 && isScalar(r.data[len(r.data)-1]) {
				r.data = r.data[:len(r.data)-1]
			}
			if len(r.data) == 0 {
				return cut
			}
		default:
			return malformed
		}
		if open.depth == 0 {
			return whole
		}
	}
}

// member is a member of an object. What comes after the value in the scanner is not of it.
type member struct {
	key   []byte // as it is written
	value scanner
}

// lastObject goes back through the object that data ends with, and gives its members that are there. It tells nothing of
// one that is malformed.
func lastObject(data []byte) []member {
	r := reverse{data}
	if r.take('}') != whole {
		return nil
	}
	if b, ok := r.before(); ok && b == '{' {
		return nil
	}
	var members []member
	for {
		r.space()
		end := len(r.data)
		result := r.skip()
		value := scanner{data: data[len(r.data) : end+1]} // with a byte after: it ends a number
		if result == whole {
			result = r.take(':')
		}
		r.space()
		end = len(r.data)
		if result == whole {
			result = r.quoted()
		}
		switch result {
		case malformed:
			return nil
		case cut:
			slices.Reverse(members)
			return members
		}
		key := data[len(r.data)+1 : end-1]
		b, ok := r.before()
		if ok && b != '{' && b != ',' {
			return nil
		}
		members = append(members, member{key, value})
		if !ok || b == '{' {
			slices.Reverse(members)
			return members
		}
		r.data = r.data[:len(r.data)-1]
	}
}
