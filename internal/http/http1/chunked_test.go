package http1

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestChunkedBody(t *testing.T) {
	for body, want := range map[string]int{
		"0\r\n\r\n":                    5,
		"0\r\n\r\nGET /":               5,
		"3\r\nabc\r\n0\r\n\r\n":        13,
		"A;x=y\r\n0123456789\r\n0\n\n": 22,
		"0\r\nA: b\r\nC: d\r\n\r\nGET": 17,
		"":                             -1,
		"0":                            -1,
		"0\r\n":                        -1,
		"0\r\nA: b\r\n":                -1,
		"3\r\nabc\r\n":                 -1,
		"3\r\nabc":                     -1,
		"3\r\nabcd\r\n0\r\n\r\n":       -1,
		"x\r\n\r\n":                    -1,
		"\r\n\r\n":                     -1,
		"ffffffffffffffffffff\r\n\r\n": -1,
		"-1\r\n\r\n":                   -1,
	} {
		length, whole := ChunkedBody([]byte(body))
		assert.Equal(t, want >= 0, whole, "%q", body)
		if whole {
			assert.Equal(t, want, length, "%q", body)
		}
	}
}

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
