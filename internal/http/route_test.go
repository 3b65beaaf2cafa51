//go:build linux

package http

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

func routesOf(t testing.TB, unmatched string, patterns ...string) *Routes {
	t.Helper()
	routes, err := compileRoutes(patterns, unmatched)
	require.NoError(t, err)
	return routes
}

func TestGuessedRoutes(t *testing.T) {
	routes := routesOf(t, "")
	for path, want := range map[string]string{
		// Words stay.
		"/":                                     "/",
		"/users":                                "/users",
		"/users/":                               "/users/",
		"/api/v1/users":                         "/api/v1/users",
		"/api/v10beta/oauth2/http2":             "/api/v10beta/oauth2/http2",
		"/v1.2/items":                           "/v1.2/items",
		"/.well-known/openid-configuration":     "/.well-known/openid-configuration",
		"/getUserProfileInformation":            "/getUserProfileInformation",
		"/getOAuth2AuthorizationServerMetadata": "/getOAuth2AuthorizationServerMetadata",
		"/iOSAppIDForMyUser":                    "/iOSAppIDForMyUser",
		"/how-to-do-it-in-go-and-why-it-is-so":  "/how-to-do-it-in-go-and-why-it-is-so",
		"/package.Service/MethodName":           "/package.Service/MethodName",
		"/accept/deadbeef/facade":               "/accept/deadbeef/facade",
		"/users:batchGet":                       "/users:batchGet",
		"/robots.txt":                           "/robots.txt",
		"/static/main.min.js":                   "/static/main.min.js",
		"/fonts/icons.woff2":                    "/fonts/icons.woff2",
		"/_health/__internal__":                 "/_health/__internal__",
		"/SHOUTING/CamelCase/snake_case":        "/SHOUTING/CamelCase/snake_case",
		"/wp-login.php":                         "/wp-login.php",
		"/a//b///c":                             "/a/b/c",
		"//":                                    "/",
		"/../../etc/passwd":                     "/../../etc/passwd",
		"*":                                     "*",
		"/internationalizationandlocalizationdata": "/internationalizationandlocalizationdata",

		// Numbers.
		"/users/1":         "/users/{number}",
		"/users/123456/":   "/users/{number}/",
		"/users/-1":        "/users/{number}",
		"/users/+1":        "/users/{number}",
		"/at/52.5200":      "/at/{number}",
		"/at/-0.1278/7":    "/at/{number}/{number}",
		"/from/1/to/2":     "/from/{number}/to/{number}",
		"/day/20240131":    "/day/{number}",
		"/image/12345.jpg": "/image/{number}.jpg",

		// UUIDs.
		"/jobs/3f2504e0-4f89-11d3-9a0c-0305e82c3301":     "/jobs/{uuid}",
		"/jobs/3F2504E0-4F89-11D3-9A0C-0305E82C3301/log": "/jobs/{uuid}/log",
		"/docs/3f2504e0-4f89-11d3-9a0c-0305e82c3301.pdf": "/docs/{uuid}.pdf",
		"/jobs/3f2504e0-4f89-11d3-9a0c-0305e82c330":      "/jobs/{id}",

		// Hexadecimal.
		"/commit/deadbee1": "/commit/{hash}",
		"/commit/DEADBEE1": "/commit/{hash}",
		"/commit/deadbe1":  "/commit/deadbe1",
		"/commit/e3b0c44298fc1c149afbf4c8996fb92427ae41e4":      "/commit/{hash}",
		"/object/507f1f77bcf86cd799439011":                      "/object/{hash}",
		"/assets/3f2a1b9c.css":                                  "/assets/{hash}.css",
		"/assets/" + strings.Repeat("0123456789abcdef", 8):      "/assets/{hash}",
		"/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e": "/blobs/{id}",

		// Tokens, base64.
		"/t/dGhpcyBpcyBhIHRlc3Q=":       "/t/{id}",
		"/t/SGVsbG8gV29ybGQgaXQgaXM":    "/t/{id}",
		"/watch/dQw4w9WgXcQ/x":          "/watch/dQw4w9WgXcQ/x", // 2 digits in 11 letters: no telling it from a name
		"/t/xKjQzVwRtYbNmLpSdFgH":       "/t/{id}",
		"/c/cus_NffrFeUfNV2Hib":         "/c/{id}",
		"/u/01ARZ3NDEKTSV4RRFFQ69G5FAV": "/u/{id}",
		"/j/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N": "/j/{id}",
		"/long/" + strings.Repeat("word-", 13) + "end":                               "/long/{id}",

		// Digits with letters.
		"/orders/AB-1234":       "/orders/{id}",
		"/orders/order123":      "/orders/{id}",
		"/orders/order12":       "/orders/order12",
		"/files/report-2024.md": "/files/{id}.md",
		"/app.3f2a1b9c.js":      "/{id}.js",
		"/pods/web-7d4b9-x2x1k": "/pods/{id}",

		// Dates, addresses, ranges, people.
		"/on/2024-01-31":           "/on/{id}",
		"/on/2024-01":              "/on/{id}",
		"/on/31.01.2024":           "/on/{id}",
		"/on/2024-01-31T10:00:00Z": "/on/{id}",
		"/hosts/10.0.0.1":          "/hosts/{id}",
		"/pages/1-2":               "/pages/{id}",
		"/mail/bob@example.com":    "/mail/{id}",
		"/mail/a.b@c.d":            "/mail/{id}",
		"/@bob/posts":              "/{id}/posts",

		// What is not plain ASCII is data.
		"/search/hello%20world": "/search/{id}",
		"/tag/caf%C3%A9":        "/tag/{id}",
		"/tag/café":             "/tag/{id}",
		"/tag/\xff\xfe":         "/tag/{id}",

		// Path parameters.
		"/cart;jsessionid=1A2B3C4D":    "/cart",
		"/cart;jsessionid=1A2B3C4D/go": "/cart/go",
		"/;x=1":                        "/",

		// Long paths.
		"/a/b/c/d/e/f/g/h":      "/a/b/c/d/e/f/g/h",
		"/a/b/c/d/e/f/g/h/":     "/a/b/c/d/e/f/g/h/",
		"/a/b/c/d/e/f/g/h/i":    "/a/b/c/d/e/f/g/h/**",
		"/1/b/c/d/e/f/g/h/i/10": "/{number}/b/c/d/e/f/g/h/**",

		"": "",
	} {
		assert.Equal(t, want, routes.Route(path), "%q", path)
	}
}

func TestRandomTokensAreFound(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	state := uint64(1)
	missed := 0
	const tokens, length = 10000, 22 // 22 letters are 128 bits
	for range tokens {
		var token [length]byte
		for i := range token {
			state++
			token[i] = alphabet[mix(state)%64]
		}
		if classify(string(token[:])) == "" {
			missed++
		}
	}
	assert.Less(t, missed, tokens/20)
}

func TestConfiguredRoutes(t *testing.T) {
	routes := routesOf(t, "drop",
		"/", "/users", "/users/{id}", "/users/me", "/users/{id}/posts/{post}", "/static/*", "/static/logo.png",
		"/{tenant}/admin", "/files/{name}/*", "/trailing/", "/über/{x}")
	for path, want := range map[string]string{
		"/":                       "/",
		"/users":                  "/users",
		"/users/":                 "/users",
		"/users/17":               "/users/{id}",
		"/users/17/":              "/users/{id}",
		"/users/me":               "/users/me",
		"/users/me/posts/3":       "/users/{id}/posts/{post}",
		"/users/17/posts":         "",
		"/users//posts/3":         "",
		"/users/17/posts/3/4":     "",
		"/static":                 "",
		"/static/":                "/static/*",
		"/static/a":               "/static/*",
		"/static/a/b/c":           "/static/*",
		"/static/logo.png":        "/static/logo.png",
		"/static/logo.png/x":      "/static/*",
		"/static/admin":           "/static/*",
		"/acme/admin":             "/{tenant}/admin",
		"/users/admin":            "/users/{id}",
		"/files/a":                "",
		"/files/a/":               "/files/{name}/*",
		"/files/a/b":              "/files/{name}/*",
		"/files/admin":            "/{tenant}/admin", // the branch of the word has no pattern: back to the placeholder
		"/trailing":               "/trailing/",
		"/trailing/":              "/trailing/",
		"/Users":                  "",
		"/über/1":                 "/über/{x}",
		"*":                       "",
		"":                        "",
		"users":                   "",
		"//":                      "",
		strings.Repeat("/a", 500): "",
	} {
		assert.Equal(t, want, routes.Route(path), "%q", path)
	}
	assert.Equal(t, "/*", routesOf(t, "drop", "/*").Route("/any/thing"))
	assert.Equal(t, "/*", routesOf(t, "drop", "/*").Route("/"))
}

func TestUnmatched(t *testing.T) {
	for unmatched, want := range map[string]string{
		"":                 "/orders/{number}",
		unmatchedHeuristic: "/orders/{number}",
		unmatchedPath:      "/orders/17",
		unmatchedDrop:      "",
	} {
		routes := routesOf(t, unmatched, "/users/{id}")
		assert.Equal(t, want, routes.Route("/orders/17"), "%q", unmatched)
		assert.Equal(t, "/users/{id}", routes.Route("/users/17"), "%q", unmatched)
	}
	assert.Equal(t, "/\uFFFD", routesOf(t, unmatchedPath).Route("/\xff"))
}

func TestRoutesThatCannotBe(t *testing.T) {
	for pattern, want := range map[string]string{
		"":             "is empty",
		"users":        "does not begin with a slash",
		"/a//b":        "two slashes in a row",
		"//":           "two slashes in a row",
		"/a/*/b":       "not its last segment",
		"/a/*/":        "not its last segment",
		"/a/b*":        `within the segment "b*"`,
		"/a/{id":       `within the segment "{id"`,
		"/a/id}":       `within the segment "id}"`,
		"/a/{id}.json": `within the segment "{id}.json"`,
		"/a/{a}{b}":    `within the segment "{a}{b}"`,
		"/a/{}":        "without a name",
		"/a?b":         "without query",
		"/a#b":         "without query",
		"/\xff":        "not valid UTF-8",
	} {
		routes, err := compileRoutes([]string{"/fine", pattern}, "")
		assert.ErrorContains(t, err, want, "%q", pattern)
		assert.ErrorContains(t, err, "patterns[1]", "%q", pattern)
		assert.Nil(t, routes)
	}
	for _, twice := range [][2]string{{"/a", "/a"}, {"/a", "/a/"}, {"/a/{x}", "/a/{y}"}, {"/a/*", "/a/*"}} {
		_, err := compileRoutes(twice[:], "")
		assert.ErrorContains(t, err, fmt.Sprintf("matches the same paths as %q", twice[0]))
	}
	_, err := compileRoutes([]string{"a", "b"}, "guess")
	assert.ErrorContains(t, err, `unmatched: "guess" is none of heuristic, path, drop`)
	assert.ErrorContains(t, err, "patterns[0]")
	assert.ErrorContains(t, err, "patterns[1]")
}

func TestRoutesOfAServiceAreLimited(t *testing.T) {
	limit := newRouteCap(3, 0)
	for i := range 5 {
		route := fmt.Sprintf("/%c", 'a'+i)
		want := route
		if i >= 3 {
			want = restOfPath
		}
		assert.Equal(t, want, limit.admit("shop", route))
	}
	assert.Equal(t, "/a", limit.admit("shop", "/a"), "known ones stay")
	assert.Equal(t, "/z", limit.admit("bank", "/z"), "another service has its own")
	assert.EqualValues(t, 2, limit.refused)
	assert.Equal(t, restOfPath, limit.known("bank", "/y"))
	assert.Equal(t, "/z", limit.known("bank", "/z"))
	assert.Equal(t, restOfPath, limit.known("unheard", "/z"))
	assert.Len(t, limit.byName, 2, "to ask makes no service known")
	assert.Equal(t, defaultRoutes, newRouteCap(0, 0).routes)
}

func TestServicesOfARouteCapAreLimited(t *testing.T) {
	limit := newRouteCap(1, 2)
	limit.admit("a", "/1")
	limit.admit("b", "/1")
	limit.admit("a", "/1")
	limit.admit("c", "/1")
	assert.Len(t, limit.byName, 2)
	assert.Equal(t, "/1", limit.known("a", "/1"))
	assert.Equal(t, restOfPath, limit.known("b", "/1"), "the one used longest ago was forgotten")
}

func TestRouteTable(t *testing.T) {
	table, err := newRouteTable([]string{"/users/{id}"}, "")
	require.NoError(t, err)
	owner := exampleOwner(t, "shop")
	route := func(target string, status int) string {
		return table.route(&Exchange{Role: RoleServer, Owner: owner, Target: target, Status: status})
	}
	for i := range 2 * defaultRoutes {
		for _, status := range []int{400, 404, 405} {
			assert.Equal(t, restOfPath, route(fmt.Sprintf("/%c%c.php", 'a'+i%26, 'a'+i/26), status))
		}
	}
	assert.Equal(t, "/orders/{number}", route("/orders/1?x=2", 200), "what is not found takes no place")
	assert.Equal(t, "/orders/{number}", route("/orders/2", 404), "but where it is known, it is named")
	assert.Equal(t, "/users/{id}", route("http://shop/users/3", 404))
	assert.Empty(t, route("", 200))
	assert.Empty(t, table.route(&Exchange{Role: RoleClient, Owner: owner, Target: "/orders/1", Status: 200}))
	for i := range 2 * defaultRoutes {
		route(fmt.Sprintf("/%c%c", 'a'+i%26, 'a'+i/26), 200)
	}
	assert.Equal(t, restOfPath, route("/zzz", 200))
	assert.Equal(t, "/users/{id}", route("/users/4", 200), "configured routes are not limited")

	_, err = newRouteTable([]string{"x"}, "")
	assert.Error(t, err)
}

func TestSplitTarget(t *testing.T) {
	for target, want := range map[string][2]string{
		"":                                 {"", ""},
		"/":                                {"/", ""},
		"/a/b":                             {"/a/b", ""},
		"/a?b=c&d":                         {"/a", "b=c&d"},
		"/a?":                              {"/a", ""},
		"/a?b?c":                           {"/a", "b?c"},
		"/?":                               {"/", ""},
		"/a#b":                             {"/a", ""},
		"/a?b#c?d":                         {"/a", "b"},
		"//host/a":                         {"//host/a", ""},
		"/go?to=http://other/path":         {"/go", "to=http://other/path"},
		"*":                                {"*", ""},
		"http://host":                      {"/", ""},
		"http://host/":                     {"/", ""},
		"http://host:80/a?b":               {"/a", "b"},
		"HTTP://host/a":                    {"/a", ""},
		"http://host?b":                    {"/", "b"},
		"http://host#b":                    {"/", ""},
		"http://user:secret@host/a":        {"/a", ""},
		"host:443":                         {"", ""},
		"[::1]:443":                        {"", ""},
		"host":                             {"", ""},
		"a/b?c":                            {"a/b", "c"},
		"://x/a":                           {"://x/a", ""},
		"1http://x/a":                      {"1http://x/a", ""},
		"ht tp://x/a":                      {"ht tp://x/a", ""},
		"/\xff?\xff":                       {"/\xff", "\xff"},
		"a?u=http://host/x":                {"a", "u=http://host/x"},
		"coap+tcp://host/a":                {"/a", ""},
		"https://host/a?u=https://other/b": {"/a", "u=https://other/b"},
	} {
		path, query := splitTarget(target)
		assert.Equal(t, want, [2]string{path, query}, "%q", target)
	}
}

func TestRedactQuery(t *testing.T) {
	for query, want := range map[string]string{
		"":                               "",
		"a=1&b=2":                        "a=1&b=2",
		"sig=abc":                        "sig=REDACTED",
		"a=1&sig=abc&b=2":                "a=1&sig=REDACTED&b=2",
		"sig=a&sig=b":                    "sig=REDACTED&sig=REDACTED",
		"sig=abc=def==":                  "sig=REDACTED",
		"sig":                            "sig",
		"sig=":                           "sig=REDACTED",
		"=sig":                           "=sig",
		"&&sig=x&&":                      "&&sig=REDACTED&&",
		"AWSAccessKeyId=x":               "AWSAccessKeyId=REDACTED",
		"Signature=x":                    "Signature=REDACTED",
		"X-Goog-Signature=x":             "X-Goog-Signature=REDACTED",
		"X-Amz-Signature=x":              "X-Amz-Signature=REDACTED",
		"X-Amz-Credential=x":             "X-Amz-Credential=REDACTED",
		"X-Amz-Security-Token=x":         "X-Amz-Security-Token=REDACTED",
		"x-amz-security-tokens=x":        "x-amz-security-tokens=x",
		"access_token=x&TOKEN=y":         "access_token=REDACTED&TOKEN=REDACTED",
		"Api_Key=x&apikey=y&key=z":       "Api_Key=REDACTED&apikey=REDACTED&key=REDACTED",
		"password=x&passwd=y":            "password=REDACTED&passwd=REDACTED",
		"secret=x&client_secret=y":       "secret=REDACTED&client_secret=REDACTED",
		"auth=x&code=y&state=z":          "auth=REDACTED&code=y&state=z",
		"monkey=x&keys=y&author=z":       "monkey=x&keys=y&author=z",
		"%74oken=x":                      "%74oken=REDACTED",
		"%54OKEN=x":                      "%54OKEN=REDACTED",
		"access%5Ftoken=x":               "access%5Ftoken=REDACTED",
		"access%5ftoken=x":               "access%5ftoken=REDACTED",
		"%7=x&%zz=y&%=z":                 "%7=x&%zz=y&%=z",
		"a=1;token=x&b=2":                "a=1;token=REDACTED&b=2",
		"token=x;y&b=2":                  "token=REDACTED&b=2",
		"a=%26token=x":                   "a=%26token=x",
		"a=+%20&sig=x&utf=\xff\xfe":      "a=+%20&sig=REDACTED&utf=\xff\xfe",
		"sig\x00=x":                      "sig\x00=x",
		strings.Repeat("%74", 21) + "=x": strings.Repeat("%74", 21) + "=x",
	} {
		assert.Equal(t, want, redactQuery(query), "%q", query)
	}
}

func FuzzTarget(f *testing.F) {
	for _, target := range []string{
		"/a/b?c=d&sig=x", "http://user:secret@host:80/a?token=1;key=2", "*", "host:443", "/a;b=c/%20?%74oken=x#f", "//",
	} {
		f.Add(target)
	}
	guess, keep := routesOf(f, ""), routesOf(f, unmatchedPath, "/a/{b}", "/c/*")
	f.Fuzz(func(t *testing.T, target string) {
		path, query := splitTarget(target)
		assert.LessOrEqual(t, len(path)+len(query), len(target)+1)
		assert.NotContains(t, path, "?")
		assert.NotContains(t, path+query, "#")

		hidden := redactQuery(query)
		assert.Equal(t, hidden, redactQuery(hidden), "once is enough")
		assert.Equal(t, strings.Count(query, "&"), strings.Count(hidden, "&"))
		before, after := strings.Split(query, "&"), strings.Split(hidden, "&")
		for i := range before {
			if before[i] != after[i] {
				assert.True(t, strings.HasSuffix(after[i], "="+redacted), "%q became %q", before[i], after[i])
			}
			key, _, ok := strings.Cut(after[i], "=")
			if ok && isSecret(strings.ToLower(key)) {
				assert.Equal(t, key+"="+redacted, after[i])
			}
		}

		route := guess.Route(path)
		assert.True(t, utf8.ValidString(route), "%q", route)
		assert.LessOrEqual(t, strings.Count(strings.TrimSuffix(route, restOfPath), "/"), maxRouteSegments+1)
		assert.True(t, utf8.ValidString(keep.Route(path)))

		for _, role := range []Role{RoleServer, RoleClient} {
			e := &Exchange{Role: role, Method: "GET", Target: target, Host: target}
			e.server()
			if full := e.fullURL(); full != "" {
				assert.NotContains(t, full, "#")
			}
		}
	})
}

func FuzzSplitHost(f *testing.F) {
	for _, host := range []string{"a:80", "[::1]:80", "[::1", "a:", ":80", "a:b", "a@b"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		host, _, ok := splitHost(authority)
		assert.Equal(t, ok, host != "")
		assert.False(t, strings.ContainsAny(host, "/?#@ []"))
	})
}

func BenchmarkRoute(b *testing.B) {
	routes := routesOf(b, "", "/users/{id}", "/static/*")
	for name, path := range map[string]string{
		"pattern": "/users/17", "words": "/api/v1/orders/search",
		"ids": "/api/v1/orders/12345/items/3f2504e0-4f89-11d3-9a0c-0305e82c3301",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				routes.Route(path)
			}
		})
	}
}

func BenchmarkRedactQuery(b *testing.B) {
	for name, query := range map[string]string{
		"plain": "page=2&sort=name&filter=active", "secret": "page=2&access_token=abcdef&filter=active",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				redactQuery(query)
			}
		})
	}
}

func TestMethodsOfGRPCAreBounded(t *testing.T) {
	table, err := newRouteTable(nil, "")
	require.NoError(t, err)
	call := func(role Role, method string, status int) string {
		return table.route(&Exchange{
			Role: role, Owner: &workload.Workload{}, GRPC: true, GRPCStatus: status, Target: "/" + method,
		})
	}
	assert.Equal(t, methodOther, call(RoleServer, "a.B/Served", grpcUnimplemented))
	assert.Equal(t, "a.B/Served", call(RoleServer, "a.B/Served", grpcOK))
	assert.Equal(t, "a.B/Served", call(RoleServer, "a.B/Served", grpcUnimplemented), "it is known to be there")
	distinct := map[string]bool{}
	for i := range 3 * defaultRoutes {
		distinct[call(RoleServer, fmt.Sprintf("a.B/M%d", i), grpcOK)] = true
		assert.Equal(t, methodOther, call(RoleServer, fmt.Sprintf("scan.ned/M%d", i), grpcUnimplemented))
	}
	assert.Len(t, distinct, defaultRoutes, "with _OTHER, and but for the first one")
	assert.True(t, distinct[methodOther])
	assert.Equal(t, "a.B/Served", call(RoleServer, "a.B/Served", grpcNoStatus))
	assert.Equal(t, methodOther, call(RoleClient, "c.D/E", grpcOK))
	assert.Empty(t, call(RoleClient, "", grpcOK))
	assert.Equal(t, "/orders", table.route(&Exchange{Role: RoleServer, Owner: &workload.Workload{}, Target: "/orders"}),
		"methods take no place of routes")
}
