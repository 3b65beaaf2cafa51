//go:build linux

package http

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGoPatternPath(t *testing.T) {
	for pattern, expected := range map[string]string{
		"/":                             "/",
		"GET /items/{id}":               "/items/{id}",
		"GET \t/items/{id}":             "/items/{id}",
		"GET example.com/items/{id}":    "/items/{id}",
		"example.com/":                  "/",
		"/exact/{$}":                    "/exact/{$}",
		"/files/{rest...}":              "/files/{rest...}",
		"":                              "",
		"GET":                           "",
		"/line\nbreak":                  "",
		"/not\xffUTF-8":                 "",
		"/caf\u00e9/" + "{drink}":       "/caf\u00e9/{drink}",
		"[::1]:8080/with/address/{and}": "/with/address/{and}",
	} {
		assert.Equal(t, expected, goPatternPath(pattern), "%q", pattern)
	}
}

// TestMatchesGoPath compares with a mux of net/http that has the one pattern.
func TestMatchesGoPath(t *testing.T) {
	patterns := []string{
		"/", "/{$}", "/a", "/a/", "/a/{$}", "/a/{x}", "/a/{x}/", "/a/{x}/{$}", "/a/{x}/c", "/a/{rest...}", "/{x}", "/{x}/{y}",
		"/{rest...}", "/a%2Fb", "/a%2Fb/{x}", "/caf%C3%A9", "/caf\u00e9/{x}",
	}
	targets := []string{
		"/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/", "/b", "/b/", "/a%2Fb", "/a%2fb/c", "/a%2Fb/", "/%61", "/%61/b",
		"//", "/a//b", "/a/./b", "/a/../b", "/a/../a/b", "/a/b/..", "/.a/b", "/caf%C3%A9", "/caf%c3%a9/x", "/a/b%2Fc", "/..", "/.",
	}
	for _, pattern := range patterns {
		mux := http.NewServeMux()
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
		for _, target := range targets {
			_, found := mux.Handler(httptest.NewRequest(http.MethodGet, target, http.NoBody))
			if found == "" {
				assert.False(t, matchesGoPath(pattern, cleanedPath(target)), "%s by %s", target, pattern)
			} else {
				assert.True(t, matchesGoPath(pattern, cleanedPath(target)), "%s by %s", target, pattern)
			}
		}
	}
	for _, target := range []string{"", "*", "example.com:443"} {
		assert.False(t, matchesGoPath("/", target), target)
	}
}

func TestNestedGoPatterns(t *testing.T) {
	for _, test := range []struct{ outer, inner, target, expected string }{
		{"", "/items/{id}", "/items/5", "/items/{id}"},
		{"", "/items/{id}", "/other/5", ""},
		{"/", "/items/{id}", "/items/5", "/items/{id}"},
		{"/api/", "/api/items/{id}", "/api/items/5", "/api/items/{id}"},
		{"/api/{rest...}", "/api/items/{id}", "/api/items/5", "/api/items/{id}"},
		{"/{tenant}/", "/{t}/items/{id}", "/acme/items/5", "/{t}/items/{id}"},
		{"/{tenant}/", "/acme/items/{id}", "/acme/items/5", "/acme/items/{id}"},
		// Behind http.StripPrefix.
		{"/api/", "/items/{id}", "/api/items/5", "/api/items/{id}"},
		{"/api/", "/", "/api/items/5", "/api/"},
		{"/api/", "/{rest...}", "/api/items/5", "/api/{rest...}"},
		{"/api/", "/api/x", "/api/api/x", "/api/"},
		// What a handler asks of a mux besides.
		{"/items/{id}", "/", "/items/5", "/items/{id}"},
		{"/items/{$}", "/items/", "/items/", "/items/{$}"},
		{"/api/", "/other/{x}", "/api/items/5", "/api/"},
	} {
		g := newGoRoutes()
		for range 2 { // the second time, it is remembered
			assert.Equal(t, test.expected, g.within(test.outer, test.inner, test.target), "%+v", test)
		}
	}
}

// routeMessage is what the kernel side tells of a pattern.
func routeMessage(goroutine, parent uint64, pattern string) (*message, []byte) {
	return &message{
		Kind: uint8(bpfMessageKindMESSAGE_ROUTE), Cookie: 7, Goroutine: goroutine, ParentGoroutine: parent,
		Length: uint32(len(pattern)), Captured: uint16(min(len(pattern), 128)),
	}, []byte(pattern)
}

// TestGoRoutesTie has a server's goroutine 5 receive requests on a connection.
func TestGoRoutesTie(t *testing.T) {
	begin := func(p *pairing, target string) *Exchange {
		e := &Exchange{Role: RoleServer, Target: target}
		e.service = p.serving.receive(&message{Goroutine: 5, Cookie: 1}, 7, schedulingGoroutines, &e.id)
		return e
	}
	newCase := func() *pairing {
		p := newPairing(10, nil, nil)
		p.connections[1] = &connection{}
		return p
	}
	finish := func(p *pairing, e *Exchange) string {
		p.leave(e, &message{Goroutine: 5, Cookie: 1})
		return e.matched
	}
	t.Run("one after the other", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5?query")
		p.handleTold(routeMessage(5, 0, "GET /items/{id}"))
		assert.Equal(t, "/items/{id}", finish(p, e))
		assert.Empty(t, finish(p, begin(p, "/items/6")), "nothing was told of it")
		assert.Equal(t, uint64(1), p.goRoutes.told)
	})
	t.Run("child", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5")
		p.handleTold(routeMessage(6, 5, "/items/{id}"))
		assert.Equal(t, "/items/{id}", finish(p, e))
	})
	t.Run("child of a reader of HTTP/2", func(t *testing.T) {
		p := newCase()
		p.connections[1].multiplexed = &streams{}
		e := begin(p, "/items/5")
		p.handleTold(routeMessage(6, 5, "/items/{id}"))
		assert.Empty(t, finish(p, e))
		assert.Equal(t, uint64(1), p.goRoutes.untied)
	})
	t.Run("another goroutine", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5")
		p.handleTold(routeMessage(6, 4, "/items/{id}"))
		assert.Empty(t, finish(p, e))
		assert.Equal(t, uint64(1), p.goRoutes.untied)
	})
	t.Run("several at once", func(t *testing.T) {
		p := newCase()
		first, second := begin(p, "/items/5"), begin(p, "/items/6")
		p.handleTold(routeMessage(5, 0, "/items/{id}"))
		assert.Empty(t, finish(p, first))
		assert.Empty(t, finish(p, second))
		assert.Equal(t, uint64(1), p.goRoutes.untied)
	})
	t.Run("another that comes before the response", func(t *testing.T) {
		p := newCase()
		first := begin(p, "/items/5")
		p.handleTold(routeMessage(5, 0, "/items/{id}"))
		second := begin(p, "/items/6")
		p.handleTold(routeMessage(5, 0, "/items/6"))
		assert.Empty(t, finish(p, first))
		assert.Empty(t, finish(p, second))
	})
	t.Run("after a loss", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5")
		m, data := routeMessage(5, 0, "/items/{id}")
		m.Lost = 1
		p.handle(m, nil, data)
		assert.Empty(t, finish(p, e))
		assert.Equal(t, uint64(1), p.goRoutes.untied)
	})
	t.Run("answered already", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5")
		p.serving.answer(&e.service, &message{Goroutine: 5, Cookie: 1}, schedulingGoroutines)
		p.handleTold(routeMessage(5, 0, "/items/{id}"))
		assert.Empty(t, finish(p, e))
	})
	t.Run("of another path", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5")
		p.handleTold(routeMessage(5, 0, "/other/{id}"))
		assert.Empty(t, finish(p, e))
		assert.Equal(t, uint64(1), p.goRoutes.unlike)
	})
	t.Run("too long", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5")
		m, _ := routeMessage(5, 0, "/"+strings.Repeat("x", 200))
		p.handle(m, nil, nil)
		assert.Empty(t, finish(p, e))
		assert.Equal(t, uint64(1), p.goRoutes.tooLong)
	})
	t.Run("bounds", func(t *testing.T) {
		p := newCase()
		e := begin(p, "/items/5")
		for number := range maxGoPatterns + 2 {
			p.handleTold(routeMessage(5, 0, fmt.Sprintf("/%d/{id}", number)))
		}
		assert.Len(t, e.service.by.matched, maxNestedMuxes)
		assert.LessOrEqual(t, len(p.goRoutes.paths), maxGoPatterns)
	})
}

func (p *pairing) handleTold(m *message, data []byte) { p.handle(m, nil, data) }

// TestRouteOrder checks what counts of a configured route, one of the mux, and a guess.
func TestRouteOrder(t *testing.T) {
	table, err := newRouteTable([]string{"/items/{configured}"}, unmatchedDrop)
	require.NoError(t, err)
	for _, test := range []struct {
		target, matched, expected string
		status                    int
	}{
		{"/items/5", "/items/{id}", "/items/{configured}", 200},
		{"/orders/5", "/orders/{id}", "/orders/{id}", 200},
		{"/orders/5", "/orders/{id}", "/orders/{id}", 404}, // the handler did not find it
		{"/orders/5", "", "", 200},
	} {
		e := exampleExchange(t, RoleServer)
		e.Target, e.matched, e.Status = test.target, test.matched, test.status
		assert.Equal(t, test.expected, table.route(e), "%+v", test)
	}
}

func FuzzGoPattern(f *testing.F) {
	f.Add("GET example.com/items/{id}", "/api/", "/api/items/5")
	f.Add("/files/{rest...}", "/", "/files/a//b")
	f.Add("/a/{$}", "/{x}/", "/a/%2f/../")
	f.Fuzz(func(t *testing.T, pattern, outer, target string) {
		inner, around := goPatternPath(pattern), goPatternPath(outer)
		if inner == "" {
			return
		}
		require.True(t, strings.HasPrefix(inner, "/"))
		g := newGoRoutes()
		cleaned := cleanedPath(target)
		if route := g.within("", inner, cleaned); route != "" {
			require.Equal(t, inner, route)
		}
		if around != "" {
			route := g.within(around, inner, cleaned)
			require.True(t, route == around || matchesGoPath(route, cleaned))
		}
	})
}
