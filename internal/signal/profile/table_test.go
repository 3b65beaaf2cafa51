package profile

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestListsWithEqualHashesAreDifferent(t *testing.T) {
	l := newLists[int32]()
	one := l.add([]int32{1, 2})
	l.first.put(l.hash([]int32{3, 4}), one) // as if both hashes were the same
	two := l.add([]int32{3, 4})
	l.first.put(l.hash([]int32{5}), two)
	three := l.add([]int32{5})
	assert.Equal(t, []int32{1, 2, 3}, []int32{one, two, three})

	l.first.put(l.hash([]int32{1, 2}), three)
	assert.Equal(t, one, l.add([]int32{1, 2}))
	assert.Equal(t, two, l.add([]int32{3, 4}))
	assert.Equal(t, three, l.add([]int32{5}))
	assert.Equal(t, []int32{3, 4}, l.at(two))

	assert.Zero(t, l.add(nil))
	assert.Empty(t, l.at(0))
	assert.NotEqual(t, l.add([]int32{1, 2, 0}), one)
	assert.NotEqual(t, l.add([]int32{2, 1}), one)
}

func TestTableStartsWithTheZeroValue(t *testing.T) {
	var strings table[string]
	assert.Equal(t, []string{""}, strings.all())
	assert.Zero(t, strings.add(""))
	assert.Equal(t, int32(1), strings.add("a"))
	assert.Equal(t, int32(2), strings.add("b"))
	assert.Equal(t, int32(1), strings.add("a"))
	assert.Equal(t, []string{"", "a", "b"}, strings.all())
	strings.recycle()
	assert.Equal(t, []string{""}, strings.all())
	assert.Equal(t, int32(1), strings.add("b"))
}
