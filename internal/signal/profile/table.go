package profile

import (
	"hash/maphash"
	"slices"
)

// leastRoom is what a table keeps between messages in any case; beyond it, four times what the last message needed.
const leastRoom = 1024

// excessive says that a container has far more room than it had use for.
func excessive(room, used int) bool { return room > leastRoom && room/4 > used }

// recycled is an empty slice for the next message, with the old one's room unless that is excessive. It refers to nothing.
func recycled[Element any](old []Element) []Element {
	if excessive(cap(old), len(old)) {
		return nil
	}
	clear(old)
	return old[:0]
}

// recycledScratch is the same for what was filled again and again, so that its length does not tell what it was used for.
func recycledScratch[Element any](old []Element) []Element {
	if cap(old) > leastRoom {
		return nil
	}
	clear(old[:cap(old)])
	return old[:0]
}

// memory is a map that is emptied after every message.
type memory[Key comparable, Value any] struct {
	entries map[Key]Value
	room    int // the most entries it has had: a map never shrinks
}

func (m *memory[Key, Value]) get(key Key) (Value, bool) {
	value, ok := m.entries[key]
	return value, ok
}

func (m *memory[Key, Value]) put(key Key, value Value) {
	if m.entries == nil {
		m.entries = make(map[Key]Value)
	}
	m.entries[key] = value
}

func (m *memory[Key, Value]) recycle() {
	m.room = max(m.room, len(m.entries))
	if excessive(m.room, len(m.entries)) {
		m.entries, m.room = nil, 0
		return
	}
	clear(m.entries)
}

// table numbers distinct values in the order of their first sight. Row 0 is the zero value.
type table[Value comparable] struct {
	rows    []Value
	indices memory[Value, int32]
}

// add gives the value's index, a new one where it has none.
func (t *table[Value]) add(value Value) int32 {
	var zero Value
	if value == zero {
		return 0
	}
	index, ok := t.indices.get(value)
	if !ok {
		index = t.append(value)
		t.indices.put(value, index)
	}
	return index
}

func (t *table[Value]) append(value Value) int32 {
	if len(t.rows) == 0 {
		var zero Value
		t.rows = append(t.rows, zero)
	}
	t.rows = append(t.rows, value)
	return int32(len(t.rows) - 1)
}

// find gives the value's index, if it has one.
func (t *table[Value]) find(value Value) (int32, bool) {
	var zero Value
	if value == zero {
		return 0, true
	}
	return t.indices.get(value)
}

// all are the rows, with row 0 in any case.
func (t *table[Value]) all() []Value {
	if len(t.rows) == 0 {
		return make([]Value, 1)
	}
	return t.rows
}

func (t *table[Value]) recycle() {
	t.rows = recycled(t.rows)
	t.indices.recycle()
}

// lists numbers distinct lists in the order of their first sight. List 0 is the empty one.
type lists[Element comparable] struct {
	elements []Element // of all lists, one after the other
	lists    []list
	first    memory[uint64, int32] // by hash: the list that was added last
	seed     maphash.Seed
}

// list is where a list is in the elements.
type list struct {
	start, end int
	next       int32 // another one with the same hash, 0 for none
}

func newLists[Element comparable]() lists[Element] {
	return lists[Element]{seed: maphash.MakeSeed()}
}

// add gives the list's index, a new one where it has none. It copies the elements.
func (l *lists[Element]) add(elements []Element) int32 {
	if len(elements) == 0 {
		return 0
	}
	hash := l.hash(elements)
	first, _ := l.first.get(hash)
	for index := first; index != 0; index = l.lists[index].next {
		if slices.Equal(l.at(index), elements) {
			return index
		}
	}
	if len(l.lists) == 0 {
		l.lists = append(l.lists, list{})
	}
	start := len(l.elements)
	l.elements = append(l.elements, elements...)
	l.lists = append(l.lists, list{start: start, end: len(l.elements), next: first})
	index := int32(len(l.lists) - 1)
	l.first.put(hash, index)
	return index
}

func (l *lists[Element]) hash(elements []Element) uint64 {
	type state struct {
		hash    uint64
		element Element
	}
	var hash uint64
	for _, element := range elements {
		hash = maphash.Comparable(l.seed, state{hash, element})
	}
	return hash
}

// length is how many lists there are, with list 0 in any case.
func (l *lists[Element]) length() int { return max(1, len(l.lists)) }

// at gives the elements of a list that was added; they are only valid until the next one is.
func (l *lists[Element]) at(index int32) []Element {
	if index == 0 {
		return nil
	}
	list := l.lists[index]
	return l.elements[list.start:list.end]
}

func (l *lists[Element]) recycle() {
	l.elements = recycled(l.elements)
	l.lists = recycled(l.lists)
	l.first.recycle()
}
