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
