package http1

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLooksLikeRequest(t *testing.T) {
	methods := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
	for _, method := range methods {
		assert.True(t, LooksLikeRequest([]byte(method+" ")), method)
		assert.True(t, LooksLikeRequest([]byte(method+" /a b HTTP/1.1\r\n")), method)
		for end := range len(method) + 1 {
			assert.False(t, LooksLikeRequest([]byte(method[:end])), method[:end])
		}
	}
	for _, other := range []string{
		" GET /", "get / HTTP/1.1", "GETS / HTTP/1.1", "GET\t/", "PROPFIND / HTTP/1.1", "CONNECTS /", "\r\nGET /",
		"HTTP/1.1 200 OK", "PRI * HTTP/2.0", "\x16\x03\x01",
	} {
		assert.False(t, LooksLikeRequest([]byte(other)), other)
	}
	assert.False(t, LooksLikeRequest(nil))
}

func TestLooksLikeResponse(t *testing.T) {
	for _, response := range []string{"HTTP/1.", "HTTP/1.0 200 OK", "HTTP/1.1 200 OK\r\n\r\n"} {
		assert.True(t, LooksLikeResponse([]byte(response)), response)
	}
	for _, other := range []string{
		"", "HTTP/1", "HTTP/2.0 200", "http/1.1 200", "HTTP 1.1", "GET / HTTP/1.1", " HTTP/1.1",
	} {
		assert.False(t, LooksLikeResponse([]byte(other)), other)
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
