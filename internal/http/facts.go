//go:build linux

package http

import "net/netip"

// facts are what follows from a request and the ends of its connection. A connection mostly asks for the same thing again, so
// it keeps the facts of its last exchange: to find them out anew takes ten times as long as to see that they are the same.
type facts struct {
	// What they follow from.
	role           Role // 0: nothing is known yet
	secure         bool
	method, target string
	host           string
	local, peer    netip.AddrPort

	scheme      string
	server      endpoint
	path, query string // as sent: see splitTarget

	// What is found out when it is first asked for.
	routed          bool
	route           string // of the path, without a limit; with whether it is a configured one
	configuredRoute bool
	named           bool
	name, nameRoute string // of the span, and the route that is in it
	hasURL          bool
	url             string // see fullURL
	hasQuery        bool
	redactedQuery   string
	localText       string
	peerText        string
}

// facts gives those of the exchange, of which the connection's last ones are.
func (e *Exchange) facts() *facts {
	f := e.known
	if f == nil { // it has no connection
		f = &facts{}
		e.known = f
	}
	if f.target != e.Target || f.host != e.Host || f.method != e.Method || f.role != e.Role || f.secure != e.Secure ||
		f.peer != e.Peer || f.local != e.Local {
		*f = facts{
			role: e.Role, secure: e.Secure, method: e.Method, target: e.Target, host: e.Host, local: e.Local, peer: e.Peer,
			scheme: e.scheme(), server: e.server(),
		}
		f.path, f.query = splitTarget(e.Target)
	}
	return f
}

// fullURL is that of the exchange.
func (f *facts) fullURL(e *Exchange) string {
	if !f.hasURL {
		f.url, f.hasURL = validText(e.fullURL()), true
	}
	return f.url
}

// shownQuery is the query without what is secret in it.
func (f *facts) shownQuery() string {
	if !f.hasQuery {
		f.redactedQuery, f.hasQuery = validText(redactQuery(f.query)), true
	}
	return f.redactedQuery
}

// ends are the addresses of both ends; empty: not known.
func (f *facts) ends(addresses addressTexts) (local, peer string) {
	if f.localText == "" && f.local.IsValid() {
		f.localText = addresses.text(plainAddr(f.local))
	}
	if f.peerText == "" && f.peer.IsValid() {
		f.peerText = addresses.text(plainAddr(f.peer))
	}
	return f.localText, f.peerText
}
