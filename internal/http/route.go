//go:build linux

package http

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// What becomes of a path that no configured route matches.
const (
	unmatchedHeuristic = "heuristic" // guess which segments are ids
	unmatchedPath      = "path"      // the path is the route
	unmatchedDrop      = "drop"      // no route
)

// restOfPath is a route's last segment where more follows that is not told apart, and the route of all paths that a
// routeCap has no place for.
const restOfPath = "/**"

// maxRouteSegments is how many segments a guessed route has before restOfPath.
const maxRouteSegments = 8

// Routes tells the route (http.route) of a path: one of the configured patterns, or else what the configuration says
// about the unmatched. It is immutable, and so safe for concurrent use.
type Routes struct {
	root      routeNode
	unmatched string
}

// routeNode is a place in the tree of patterns.
type routeNode struct {
	literals map[string]*routeNode
	one      *routeNode // a placeholder: one segment, not empty
	route    string     // the pattern that ends here; empty: none does
	rest     string     // the pattern that ends here with a *; empty: none does
}

// compileRoutes makes Routes of patterns such as /users/{id} and /static/*. A placeholder in braces stands for one
// segment; a star, as the last segment, for all that follows. The most specific pattern wins, segment by segment: a
// word before a placeholder, a placeholder before a star; the order of the patterns does not matter. All errors are
// reported, not just the first.
func compileRoutes(patterns []string, unmatched string) (*Routes, error) {
	routes := &Routes{unmatched: unmatched}
	var errs []error
	switch unmatched {
	case unmatchedHeuristic, unmatchedPath, unmatchedDrop:
	case "":
		routes.unmatched = unmatchedHeuristic
	default:
		errs = append(errs, fmt.Errorf("unmatched: %q is none of %s, %s, %s",
			unmatched, unmatchedHeuristic, unmatchedPath, unmatchedDrop))
	}
	for i, pattern := range patterns {
		if err := routes.insert(pattern); err != nil {
			errs = append(errs, fmt.Errorf("patterns[%d]: route %q: %w", i, pattern, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return routes, nil
}

func (r *Routes) insert(pattern string) error {
	if err := checkPattern(pattern); err != nil {
		return err
	}
	node := &r.root
	for rest := trimSlash(pattern); rest != ""; {
		var segment string
		segment, rest = cutSegment(rest)
		switch {
		case segment == "*":
			if node.rest != "" {
				return fmt.Errorf("matches the same paths as %q: remove one of the two", node.rest)
			}
			node.rest = pattern
			return nil
		case segment[0] == '{':
			if node.one == nil {
				node.one = &routeNode{}
			}
			node = node.one
		default:
			next := node.literals[segment]
			if next == nil {
				next = &routeNode{}
				if node.literals == nil {
					node.literals = map[string]*routeNode{}
				}
				node.literals[segment] = next
			}
			node = next
		}
	}
	if node.route != "" {
		return fmt.Errorf("matches the same paths as %q: remove one of the two", node.route)
	}
	node.route = pattern
	return nil
}

func checkPattern(pattern string) error {
	switch {
	case pattern == "":
		return errors.New("is empty: write a path such as /users/{id}")
	case pattern[0] != '/':
		return errors.New("does not begin with a slash")
	case !utf8.ValidString(pattern):
		return errors.New("is not valid UTF-8")
	}
	if i := strings.IndexAny(pattern, "?#"); i >= 0 {
		return fmt.Errorf("has a %q: a route is of the path alone, without query and fragment", pattern[i])
	}
	if pattern == "/" {
		return nil
	}
	segments := strings.Split(trimSlash(pattern)[1:], "/")
	for i, segment := range segments {
		switch {
		case segment == "":
			return errors.New("has an empty segment (two slashes in a row)")
		case segment == "*":
			if i != len(segments)-1 || strings.HasSuffix(pattern, "/") {
				return errors.New("has a * that is not its last segment: {name} stands for one segment in between")
			}
		case strings.Contains(segment, "*"):
			return fmt.Errorf("has a * within the segment %q: a * has to be a segment of its own, the last", segment)
		case strings.ContainsAny(segment, "{}"):
			inside, opened := strings.CutPrefix(segment, "{")
			inside, closed := strings.CutSuffix(inside, "}")
			if !opened || !closed || strings.ContainsAny(inside, "{}") {
				return fmt.Errorf("has braces within the segment %q: a placeholder such as {name} is a whole segment", segment)
			}
			if inside == "" {
				return errors.New("has a placeholder without a name: write {name}")
			}
		}
	}
	return nil
}

// trimSlash removes the slash at the end, which does not tell two routes apart.
func trimSlash(path string) string {
	return strings.TrimSuffix(path, "/")
}

// cutSegment takes the first segment off a path, which begins with a slash.
func cutSegment(path string) (segment, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// Route tells the route of a path, which has no query (see splitTarget). It is empty where there is none to tell. With
// the heuristic or the path itself, clients can make as many routes as they like: see routeCap.
func (r *Routes) Route(path string) string {
	route, _ := r.find(path)
	return route
}

// find also says whether the route is one of the configuration, of which there are only so many.
func (r *Routes) find(path string) (route string, configured bool) {
	if strings.HasPrefix(path, "/") {
		if pattern := r.root.match(path); pattern != "" {
			return pattern, true
		}
	}
	switch {
	case path == "" || r.unmatched == unmatchedDrop:
		return "", false
	case r.unmatched == unmatchedPath:
		return strings.ToValidUTF8(path, "\uFFFD"), false
	default:
		return guessRoute(path), false
	}
}

// match finds the pattern of what is left of a path. It visits every node of the tree at most once: a tree has but one
// way to each.
func (n *routeNode) match(rest string) string {
	if rest == "" || rest == "/" {
		switch {
		case n.route != "":
			return n.route
		case rest == "/":
			return n.rest // /static/ is for /static/*, /static is not
		}
		return ""
	}
	segment, after := cutSegment(rest)
	if next := n.literals[segment]; next != nil {
		if pattern := next.match(after); pattern != "" {
			return pattern
		}
	}
	if n.one != nil && segment != "" {
		if pattern := n.one.match(after); pattern != "" {
			return pattern
		}
	}
	return n.rest
}

// guessRoute replaces what looks like an id. A route is a guess in which two paths of one handler should come out the
// same: when in doubt, a segment is an id. Empty segments and path parameters (;name=value, RFC 3986 section 3.3) are
// left out.
func guessRoute(path string) string {
	if path[0] != '/' { // *, or what no client should send
		return guessSegment(path)
	}
	var buffer [256]byte
	route := buffer[:0]
	rest := path
	for count := 0; rest != ""; {
		var segment string
		segment, rest = cutSegment(rest)
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "" {
			continue
		}
		if count == maxRouteSegments {
			return string(append(route, restOfPath...))
		}
		count++
		route = append(append(route, '/'), guessSegment(segment)...)
	}
	if path[len(path)-1] == '/' {
		route = append(route, '/')
	}
	if string(route) == path {
		return path
	}
	if len(route) == 0 {
		return "/"
	}
	return string(route)
}

// Placeholders of guessed routes.
const (
	placeholderNumber = "{number}"
	placeholderUUID   = "{uuid}"
	placeholderHash   = "{hash}"
	placeholderID     = "{id}"
)

// guessSegment gives back a segment, or the placeholder for the kind of id that it looks like. A file keeps its
// extension.
func guessSegment(segment string) string {
	if dot := extensionDot(segment); dot > 0 {
		placeholder := classify(segment[:dot])
		if placeholder == "" {
			return segment
		}
		if strings.IndexByte(segment, '@') < 0 { // the end of an email address is none
			return placeholder + segment[dot:]
		}
		return placeholder
	}
	if placeholder := classify(segment); placeholder != "" {
		return placeholder
	}
	return segment
}

// extensionDot finds the dot before a file's extension: one to five lower-case letters, and then one digit at most, as
// in mp3 and woff2. -1: none.
func extensionDot(segment string) int {
	dot := strings.LastIndexByte(segment, '.')
	extension := segment[dot+1:]
	if dot <= 0 || extension == "" {
		return -1
	}
	if last := extension[len(extension)-1]; isDigit(last) {
		extension = extension[:len(extension)-1]
	}
	if len(extension) < 1 || len(extension) > 5 {
		return -1
	}
	for i := range len(extension) {
		if extension[i] < 'a' || extension[i] > 'z' {
			return -1
		}
	}
	return dot
}

// Bounds of what is taken for a word.
const (
	maxWord        = 64 // longer ones are data
	minHash        = 8  // shorter hexadecimal numbers are as likely a name
	minToken       = 16 // shorter tokens have too few letters to tell them from a name
	maxWordDigits  = 2  // as in v1, oauth2, v1beta2
	minTokenPadded = 8  // of base64 with its padding
)

// classify gives the placeholder for what looks like an id, empty for a word.
func classify(segment string) string {
	seen := shapeOf(segment)
	switch {
	case seen.number:
		return placeholderNumber
	case isUUID(segment):
		return placeholderUUID
	case seen.hexadecimal && seen.digits > 0 && len(segment) >= minHash:
		return placeholderHash
	case seen.foreign, len(segment) > maxWord:
		return placeholderID
	case seen.digits > maxWordDigits:
		return placeholderID
	case seen.digits > 0 && seen.letters == 0: // dates, ranges, addresses
		return placeholderID
	case len(segment) >= minTokenPadded && segment[len(segment)-1] == '=':
		return placeholderID
	case len(segment) >= minToken && 4*seen.turns >= len(segment):
		return placeholderID
	}
	return ""
}

// shape is what a segment is made of.
type shape struct {
	letters, digits int
	// turns is how often lower case, upper case and digits take turns. From upper to lower case is none, as that begins a
	// word in camel case: names have a turn for every five letters or more, while base64 has one for every two or three.
	turns       int
	hexadecimal bool // nothing but hexadecimal digits, in either case
	number      bool // digits, with a sign and a decimal point at most
	foreign     bool // has what words do not: percent-encoded bytes, UTF-8, at signs (email addresses)
}

func shapeOf(segment string) shape {
	const (
		none = iota
		lower
		upper
		digit
	)
	s := shape{hexadecimal: true, number: true}
	points, before := 0, none
	for i := range len(segment) {
		var class int
		switch b := segment[i]; {
		case isDigit(b):
			class = digit
			s.digits++
		case b >= 'a' && b <= 'z':
			class = lower
			s.letters++
			s.number = false
			s.hexadecimal = s.hexadecimal && b <= 'f'
		case b >= 'A' && b <= 'Z':
			class = upper
			s.letters++
			s.number = false
			s.hexadecimal = s.hexadecimal && b <= 'F'
		default:
			s.hexadecimal = false
			switch {
			case b == '.':
				points++
			case (b == '-' || b == '+') && i == 0:
			default:
				s.number = false
			}
			s.foreign = s.foreign || b == '%' || b == '@' || b <= ' ' || b >= 0x7f
			continue // separators begin no turn
		}
		if before != none && class != before && (before != upper || class != lower) {
			s.turns++
		}
		before = class
	}
	s.number = s.number && s.digits > 0 && points <= 1
	return s
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isUUID(segment string) bool {
	if len(segment) != 36 {
		return false
	}
	for i := range len(segment) {
		b := segment[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if b != '-' {
				return false
			}
		} else if !isDigit(b) && (b|0x20 < 'a' || b|0x20 > 'f') {
			return false
		}
	}
	return true
}

// routeTable tells the routes of exchanges: those of a configuration, else those that the server itself has matched, else
// what the configuration says about the unmatched; of the last two, as many as a routeCap admits. It is not
// safe for concurrent use.
type routeTable struct {
	routes  *Routes
	limit   *routeCap
	methods *routeCap // of gRPC
}

// newRouteTable makes a routeTable of what compileRoutes takes, with the default limits.
func newRouteTable(patterns []string, unmatched string) (*routeTable, error) {
	routes, err := compileRoutes(patterns, unmatched)
	if err != nil {
		return nil, err
	}
	return &routeTable{routes: routes, limit: newRouteCap(0, 0), methods: newRouteCap(0, 0)}, nil
}

// route tells the route of an exchange as its server has it, and of a call of gRPC its method on both ends; empty: none.
// Configured routes are never limited. A path that the server did not find is no proof of a route: it takes the place of
// none, so that a scanner does not push out what is really served.
func (t *routeTable) route(e *Exchange) string {
	if e.GRPC {
		return t.method(e)
	}
	if e.Role != RoleServer {
		return "" // a client does not know the routes of its servers
	}
	f := e.facts()
	if !f.routed {
		f.route, f.configuredRoute = t.routes.find(f.path)
		f.routed = true
	}
	route := f.route
	switch {
	case f.configuredRoute:
		return route
	case e.matched != "":
		return t.limit.admit(e.Owner.Service.Name, e.matched)
	case route == "":
		return route
	case e.Status == 404 || e.Status == 400 || e.Status == 405:
		return t.limit.known(e.Owner.Service.Name, route)
	default:
		return t.limit.admit(e.Owner.Service.Name, route)
	}
}

// method tells rpc.method of a call of gRPC; empty: not known. What the server does not implement, and what goes beyond
// the limit, is _OTHER.
func (t *routeTable) method(e *Exchange) string {
	method := e.rpcMethod()
	if method == "" {
		return ""
	}
	service := e.Owner.Service.Name
	if e.Role == RoleServer && (e.GRPCStatus == grpcUnimplemented || e.Status == 404) {
		method = t.methods.known(service, method)
	} else {
		method = t.methods.admit(service, method)
	}
	if method == restOfPath {
		return methodOther
	}
	return method
}

// Defaults of a routeCap.
const (
	defaultRoutes        = 200
	defaultRouteServices = 1000
)

// routeCap keeps the number of distinct routes of a service in bounds: it remembers the first so many, all others
// become /** (restOfPath). It is not safe for concurrent use.
type routeCap struct {
	routes   int // of one service
	services int // beyond, the one that was used longest ago is forgotten
	uses     uint64
	byName   map[string]*serviceRoutes
	last     *serviceRoutes // that was used last; nil: none
	refused  uint64         // routes that became /**
}

type serviceRoutes struct {
	name   string
	used   uint64
	routes map[string]string
	last   string // that was used last, or empty
}

// newRouteCap makes a routeCap for so many routes of so many services, 0 for the defaults.
func newRouteCap(routes, services int) *routeCap {
	if routes <= 0 {
		routes = defaultRoutes
	}
	if services <= 0 {
		services = defaultRouteServices
	}
	return &routeCap{routes: routes, services: services, byName: map[string]*serviceRoutes{}}
}

// admit gives back a route that the service has already or still has room for, else /**.
func (c *routeCap) admit(service, route string) string {
	of := c.service(service)
	if route == of.last && route != "" { // no hash
		return of.last
	}
	if own, ok := of.routes[route]; ok {
		of.last = own
		return own
	}
	if len(of.routes) >= c.routes {
		c.refused++
		return restOfPath
	}
	route = strings.Clone(route) // not the whole head of the request
	of.routes[route] = route
	return route
}

// known gives back a route that the service has already, else /**.
func (c *routeCap) known(service, route string) string {
	if of := c.byName[service]; of != nil {
		if own, ok := of.routes[route]; ok {
			return own
		}
	}
	c.refused++
	return restOfPath
}

func (c *routeCap) service(name string) *serviceRoutes {
	of := c.last
	if of == nil || of.name != name {
		of = c.byName[name]
	}
	if of == nil {
		if len(c.byName) >= c.services {
			c.forgetOldest()
		}
		of = &serviceRoutes{name: strings.Clone(name), routes: map[string]string{}}
		c.byName[of.name] = of
	}
	c.last = of
	c.uses++
	of.used = c.uses
	return of
}

func (c *routeCap) forgetOldest() {
	oldest, found := "", false
	for name, of := range c.byName {
		if !found || of.used < c.byName[oldest].used {
			oldest, found = name, true
		}
	}
	delete(c.byName, oldest)
}

// splitTarget takes the path and the query from a request target (RFC 9112 section 3.2): origin-form (/a?b),
// absolute-form (http://host/a?b), asterisk-form (*). The authority-form of CONNECT (host:port) has neither. A fragment
// is no part of a target; where a client sends one, it is left out.
func splitTarget(target string) (path, query string) {
	target, _, _ = strings.Cut(target, "#")
	if target == "" || target == "*" {
		return target, ""
	}
	if target[0] != '/' {
		_, _, rest, ok := splitAbsolute(target)
		switch {
		case ok && (rest == "" || rest[0] != '/'):
			_, query, _ = strings.Cut(rest, "?")
			return "/", query // RFC 9110 section 4.2.3: an empty path is /
		case ok:
			target = rest
		case !strings.ContainsAny(target, "/?"):
			return "", ""
		}
	}
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// splitAbsolute takes apart a target in absolute-form. User information is not told, only that there is some.
func splitAbsolute(target string) (scheme, authority, rest string, ok bool) {
	colon := strings.Index(target, "://")
	if colon <= 0 {
		return "", "", "", false
	}
	scheme = target[:colon]
	for i := range len(scheme) {
		b := scheme[i]
		letter := b|0x20 >= 'a' && b|0x20 <= 'z'
		if !letter && (i == 0 || !isDigit(b) && b != '+' && b != '-' && b != '.') {
			return "", "", "", false
		}
	}
	authority = target[colon+len("://"):]
	if end := strings.IndexAny(authority, "/?#"); end >= 0 {
		authority, rest = authority[:end], authority[end:]
	}
	return scheme, authority, rest, true
}

// redacted is what the semantic conventions put in the place of a secret.
const redacted = "REDACTED"

// isSecret says whether the value of a query's key is not for others: the keys that the semantic conventions list for
// url.query (of 1.43.0, and of the versions before it: AWSAccessKeyId, Signature), and those that APIs commonly use.
// The conventions match case; here it does not count, as to hide too much harms less than to tell a secret.
func isSecret(key string) bool {
	switch key {
	case "x-amz-signature", "x-amz-credential", "x-amz-security-token", "sig", "x-goog-signature",
		"awsaccesskeyid", "signature",
		"access_token", "refresh_token", "id_token", "token", "api_key", "apikey", "api-key", "x-api-key", "key",
		"password", "passwd", "secret", "client_secret", "auth":
		return true
	}
	return false
}

// longestSecretKey is the length of x-amz-security-token.
const longestSecretKey = 20

// redactQuery replaces the values of secret keys by REDACTED, and keeps all else byte for byte. Pairs end at an
// ampersand. Old forms separate them by semicolons too, so a secret key is also sought after one; as a semicolon may as
// well be part of a value, all up to the next ampersand is the secret's.
func redactQuery(query string) string {
	var result []byte // nil as long as nothing is replaced
	kept := 0         // query[:kept] is in result
	for start := 0; start < len(query); {
		end := len(query)
		if i := strings.IndexByte(query[start:], '&'); i >= 0 {
			end = start + i
		}
		if value := secretValue(query[start:end]); value >= 0 {
			if result == nil {
				result = make([]byte, 0, len(query)+len(redacted))
			}
			result = append(append(result, query[kept:start+value]...), redacted...)
			kept = end
		}
		start = end + 1
	}
	if result == nil {
		return query
	}
	return string(append(result, query[kept:]...))
}

// secretValue tells where in a pair the value of a secret key begins, -1 if there is none.
func secretValue(pair string) int {
	for start := 0; start < len(pair); {
		part := pair[start:]
		if i := strings.IndexByte(part, ';'); i >= 0 {
			part = part[:i]
		}
		if key, _, ok := strings.Cut(part, "="); ok && isSecretKey(key) {
			return start + len(key) + 1
		}
		start += len(part) + 1
	}
	return -1
}

// isSecretKey decodes a key as the receiving application does.
func isSecretKey(key string) bool {
	if len(key) > 3*longestSecretKey {
		return false
	}
	var buffer [longestSecretKey]byte
	length := 0
	for i := 0; i < len(key); i++ {
		b := key[i]
		if b == '%' && i+2 < len(key) {
			high, low := hexDigit(lowerCase(key[i+1])), hexDigit(lowerCase(key[i+2]))
			if high <= 15 && low <= 15 {
				b = high<<4 | low
				i += 2
			}
		}
		if length == len(buffer) {
			return false
		}
		buffer[length] = lowerCase(b)
		length++
	}
	return isSecret(string(buffer[:length]))
}

func lowerCase(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b | 0x20
	}
	return b
}
