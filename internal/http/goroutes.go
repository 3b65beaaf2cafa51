//go:build linux

package http

import (
	"io"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cilium/ebpf"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

const (
	goRoutesProgram = "http_go_routes"

	// maxGoPatterns bounds the patterns that are remembered, and those that are put together of two.
	maxGoPatterns = 4096
	// maxNestedMuxes bounds the patterns of one request.
	maxNestedMuxes = 8
)

// goRunHandlers are where net/http and golang.org/x/net/http2 begin to serve a stream, in a goroutine of its own.
func goRunHandlers() []string {
	return []string{"net/http.(*http2serverConn).runHandler", "golang.org/x/net/http2.(*serverConn).runHandler"}
}

// goMux attaches the kernel side to programs of Go that serve requests, so that it learns which pattern of a ServeMux each of
// them has matched; and where streams begin to be served, so that it is known which stream that is for.
type goMux struct{ routes, streams *ebpf.Program }

var _ tls.Attacher = (*goMux)(nil)

// Attach implements tls.Attacher.
func (g *goMux) Attach(target tls.Target) (io.Closer, error) {
	if _, known := goLayoutOf(target.GoVersion); !known || !hasGoMux(&target) {
		return nil, site.ErrNone
	}
	streams := goStreamFunctions(0)
	uprobes := tls.Uprobes{
		Program: func(_ tls.Target, at site.Site) *ebpf.Program {
			switch {
			case at.Cost != site.Emulated:
			case at.Event == site.Matched:
				return g.routes
			case slices.Contains(goRunHandlers(), at.Function):
				return g.streams
			}
			return nil
		},
		Cookie: func(_ tls.Target, at site.Site) uint64 { return uint64(streams[at.Function]) },
	}
	return uprobes.Attach(target)
}

// hasGoMux says whether a program has a mux that tells of its patterns.
func hasGoMux(target *tls.Target) bool {
	return slices.ContainsFunc(target.Sites, func(at site.Site) bool {
		return at.Event == site.Matched && at.Cost == site.Emulated
	})
}

// goRoutes tie patterns of Go's ServeMux (bpf/include/http/go_routes.h) to the requests that matched them. It is not safe for
// concurrent use.
type goRoutes struct {
	paths  map[string]string    // by the pattern; empty: it is none
	nested map[[2]string]string // an outer path and an inner one that it has no part of

	told uint64 // patterns that were tied to a request
	// What was told and not used, so that the route is what it is without it:
	untied  uint64 // the goroutine serves no request that is known, or several
	tooLong uint64 // the text was not captured
	unlike  uint64 // no request has such a path: a handler may have changed it
}

func newGoRoutes() goRoutes {
	return goRoutes{paths: map[string]string{}, nested: map[[2]string]string{}}
}

// handleRoute takes in that a mux has matched a pattern, for what the goroutine serves that has called it.
func (p *pairing) handleRoute(m *message, data []byte) {
	g := &p.goRoutes
	if int(m.Length) != len(data) {
		g.tooLong++
		return
	}
	u := p.serving.units[unit{pid: uint32(m.Cookie), goroutine: true, number: m.Goroutine}]
	if u == nil && m.ParentGoroutine != 0 {
		// Handlers such as http.TimeoutHandler go on in a goroutine of their own. In HTTP/2, all of a connection have the
		// same parent.
		u = p.serving.units[unit{pid: uint32(m.Cookie), goroutine: true, number: m.ParentGoroutine}]
		if u != nil {
			if c := p.connections[u.connection]; !u.once && (c == nil || c.multiplexed != nil) {
				u = nil
			}
		}
	}
	if u == nil || u.open != 1 || u.unanswered != 1 || u.mixed || u.lost != m.Lost || len(u.matched) >= maxNestedMuxes {
		g.untied++
		return
	}
	matched, known := g.paths[string(data)]
	if !known {
		if len(g.paths) >= maxGoPatterns {
			clear(g.paths)
		}
		text := string(data)
		matched = goPatternPath(text)
		g.paths[text] = matched
	}
	if matched == "" {
		g.unlike++
		return
	}
	g.told++
	u.matched = append(u.matched, matched)
}

// matched gives the route of a request by the patterns that it has matched; empty: it is not known.
func (g *goRoutes) matched(e *Exchange) string {
	u := e.service.by
	if u == nil || len(u.matched) == 0 || u.mixed {
		return ""
	}
	target, _ := splitTarget(e.Target)
	target = cleanedPath(target)
	route := ""
	for _, pattern := range u.matched {
		if route = g.within(route, pattern, target); route == "" {
			g.unlike++
			return ""
		}
	}
	return route
}

// within gives the route of a path that has matched the path of a mux's pattern, and before that outer, of the mux around it;
// empty: there was none. Empty: the path does not match.
//
// The inner pattern says more, where the outer one is of all below a path: then it begins with that, or is of what
// http.StripPrefix has left of the request's path. What a handler asks a mux for otherwise is no matter of the request.
func (g *goRoutes) within(outer, pattern, target string) string {
	if outer == "" {
		if !matchesGoPath(pattern, target) {
			return ""
		}
		return pattern
	}
	prefix, ok := goSubtree(outer)
	if !ok {
		return outer
	}
	if beginsWithSegments(pattern, prefix) {
		if matchesGoPath(pattern, target) {
			return pattern
		}
		return outer
	}
	key := [2]string{prefix, pattern}
	joined, known := g.nested[key]
	if !known {
		if len(g.nested) >= maxGoPatterns {
			clear(g.nested)
		}
		joined = prefix + pattern
		g.nested[key] = joined
	}
	if matchesGoPath(joined, target) {
		return joined
	}
	return outer
}

// goPatternPath gives the path of a pattern of a ServeMux, [METHOD ][HOST]/[PATH]; empty: it is none.
func goPatternPath(pattern string) string {
	slash := strings.IndexByte(pattern, '/')
	if slash < 0 || !utf8.ValidString(pattern) ||
		strings.ContainsFunc(pattern, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return ""
	}
	return pattern[slash:]
}

// goSubtree gives what comes before a slash at the end of a pattern's path, or before a wildcard for all that is left.
func goSubtree(pattern string) (prefix string, ok bool) {
	last := strings.LastIndexByte(pattern, '/')
	if segment := pattern[last+1:]; segment != "" && !isGoRest(segment) {
		return "", false
	}
	return pattern[:last], true
}

func isGoRest(segment string) bool {
	return strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "...}")
}

func isGoWildcard(segment string) bool {
	return strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}")
}

// beginsWithSegments says whether a pattern's path has the segments of a prefix first, or others where that has wildcards.
func beginsWithSegments(pattern, prefix string) bool {
	for prefix != "" {
		if pattern == "" {
			return false
		}
		var want, got string
		want, prefix = cutSegment(prefix)
		got, pattern = cutSegment(pattern)
		if want != got && !isGoWildcard(want) {
			return false
		}
	}
	return true
}

// matchesGoPath says whether the path of a pattern matches that of a request, as net/http has it. It also does where the mux
// answers with a redirection to the path with a slash at its end.
func matchesGoPath(pattern, target string) bool {
	if !strings.HasPrefix(target, "/") {
		return false
	}
	for {
		if pattern == "/" {
			return true
		}
		want, patternRest := cutSegment(pattern)
		last := patternRest == ""
		switch {
		case last && want == "{$}":
			return target == "/"
		case last && isGoRest(want):
			return true
		}
		got, targetRest := cutSegment(target)
		if isGoWildcard(want) {
			if got == "" {
				return false
			}
		} else if !sameSegment(want, got) {
			return false
		}
		if last {
			return targetRest == ""
		}
		if targetRest == "" {
			targetRest = "/"
		}
		pattern, target = patternRest, targetRest
	}
}

// sameSegment compares segments that may be percent-encoded.
func sameSegment(a, b string) bool {
	if a == b {
		return true
	}
	if strings.IndexByte(a, '%') < 0 && strings.IndexByte(b, '%') < 0 {
		return false
	}
	decodedA, errA := url.PathUnescape(a)
	decodedB, errB := url.PathUnescape(b)
	return errA == nil && errB == nil && decodedA == decodedB
}

// cleanedPath is what a mux looks for: it answers other paths with a redirection there.
func cleanedPath(target string) string {
	if !strings.Contains(target, "//") && !strings.Contains(target, "/.") || !strings.HasPrefix(target, "/") {
		return target
	}
	cleaned := path.Clean(target)
	if strings.HasSuffix(target, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}
