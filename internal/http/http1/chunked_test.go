package http1

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestEndsChunked(t *testing.T) {
	tests := []struct {
		name, tail string
		whole      bool
		want       bool
	}{
		{"nothing", "", true, false},
		{"last chunk after another", "b\r\n0\r\n\r\n", false, true},
		{"last chunk after another, a whole write", "1\r\nb\r\n0\r\n\r\n", true, true},
		{"no more than the end", "\r\n0\r\n\r\n", false, true},
		{"last chunk alone", "0\r\n\r\n", true, true},
		{"what came before is not known", "0\r\n\r\n", false, false},
		{"size with a zero", "10\r\n\r\n", true, false},
		{"size with a zero after a chunk", "\r\n10\r\n\r\n", true, false},
		{"a trailer follows", "\r\n0\r\nA: b\r\n\r\n", false, false},
		{"half of it", "\r\n0\r\n\r", false, false},
		{"half of it, a whole write", "0\r\n\r", true, false},
		{"more after it", "\r\n0\r\n\r\nH", false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, EndsChunked([]byte(test.tail), test.whole))
		})
	}
}
