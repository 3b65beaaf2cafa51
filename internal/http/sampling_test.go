//go:build linux

package http

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

func exampleSampler(t testing.TB, sampling Sampling) *sampler {
	t.Helper()
	s, err := newSampler(sampling)
	require.NoError(t, err)
	return s
}

func TestSampler(t *testing.T) {
	// The last 56 bits of the id against the threshold, (1 - ratio) * 2^56.
	trace := func(randomness uint64) pcommon.TraceID {
		id := pcommon.TraceID{0: 0xff, 8: 0xff}
		for i := range 7 {
			id[15-i] = byte(randomness >> (8 * i))
		}
		return id
	}
	const most = uint64(1)<<56 - 1
	for _, test := range []struct {
		ratio      float64
		randomness uint64
		want       bool
	}{
		{1, 0, true},
		{1, most, true},
		{2, 0, true},
		{0, most, false},
		{-1, most, false},
		{math.NaN(), most, false},
		{0.5, 1 << 55, true},
		{0.5, 1<<55 - 1, false},
		{0.25, 3 << 54, true},
		{0.25, 3<<54 - 1, false},
		{math.SmallestNonzeroFloat64, most, false},
		{1.0 / (1 << 56), most, true},
		{1.0 / (1 << 56), most - 1, false},
	} {
		s := exampleSampler(t, Sampling{Ratio: test.ratio})
		id := identity{trace: trace(test.randomness), flags: flagSampled}
		assert.Equal(t, test.want, s.keep(&Exchange{}, &id), "%+v", test)
		assert.Equal(t, test.want, id.sampled)
		assert.Equal(t, test.want, s.unsampled == 0)
	}
}

func TestWhatTheApplicationDidNotSampleIsNotKept(t *testing.T) {
	s, i := exampleSampler(t, Sampling{Ratio: 1}), noRandomness(t)
	for flags, want := range map[string]bool{"00": false, "01": true, "02": false, "03": true} {
		id := i.identify(&Exchange{FlowID: 1, TraceParent: "00-" + exampleTrace + "-" + exampleParent + "-" + flags})
		assert.Equal(t, want, s.keep(&Exchange{}, &id), flags)
	}
	assert.EqualValues(t, 2, s.unsampled)
}

func TestSamplingKeepsTheRatioOfDerivedTraces(t *testing.T) {
	s, i := exampleSampler(t, Sampling{Ratio: 0.1}), noRandomness(t)
	kept := 0
	const exchanges = 20000
	for n := range exchanges {
		e := &Exchange{Role: RoleServer, FlowID: uint64(n/10 + 1), RequestOffset: uint32(n % 10 * 300)}
		server := i.identify(e)
		e.Role = RoleClient
		client := i.identify(e)
		keep := s.keep(e, &server)
		require.Equal(t, keep, s.keep(e, &client), "both ends or none")
		if keep {
			kept++
		}
	}
	assert.InDelta(t, exchanges/10, kept, 0.01*exchanges)
	assert.EqualValues(t, 2*(exchanges-kept), s.unsampled)
}

// The least significant digit of each ratio tells which one decided.
func TestTheFirstRouteThatMatchesDecides(t *testing.T) {
	s := exampleSampler(t, Sampling{Ratio: 1, Routes: []SampledRoute{
		{"GET /healthz", 0.1},
		{"/healthz", 0.2},
		{"/users/{id}", 0.3},
		{"/users/me", 0.4}, // never: the pattern before it is for this path, too
		{"/static/*", 0.5},
		{"grpc.health.v1.Health/Check", 0.6},
		{"grpc.health.v1.Health/*", 0.7},
		{"/", 0.8},
	}})
	for _, test := range []struct {
		e    Exchange
		want float64
	}{
		{Exchange{Method: "GET", Target: "/healthz"}, 0.1},
		{Exchange{Method: "GET", Target: "/healthz?full=1"}, 0.1},
		{Exchange{Method: "GET", Target: "/healthz/"}, 0.1},
		{Exchange{Method: "GET", Target: "http://a.example/healthz"}, 0.1},
		{Exchange{Method: "get", Target: "/healthz"}, 0.2},
		{Exchange{Method: "HEAD", Target: "/healthz"}, 0.2},
		{Exchange{Target: "/healthz"}, 0.2},
		{Exchange{Role: RoleClient, Method: "GET", Target: "/healthz"}, 0.1},
		{Exchange{Method: "GET", Target: "/healthz/deep"}, 1},
		{Exchange{Method: "GET", Target: "/users/me"}, 0.3},
		{Exchange{Method: "GET", Target: "/static/a/b.css"}, 0.5},
		{Exchange{Method: "POST", Target: "/grpc.health.v1.Health/Check", GRPC: true}, 0.6},
		{Exchange{Target: "/grpc.health.v1.Health/Watch", GRPC: true}, 0.7},
		{Exchange{Method: "POST", Target: "/grpc.health.v1.Health/Check"}, 1},
		{Exchange{Method: "POST", Target: "/Health/Check", GRPC: true}, 1},
		{Exchange{Method: "GET", Target: "/"}, 0.8},
		{Exchange{Method: "OPTIONS", Target: "*"}, 1},
		{Exchange{Method: "CONNECT", Target: "a.example:443"}, 1},
		{Exchange{}, 1},
	} {
		assert.Equal(t, thresholdOf(test.want), s.thresholdFor(&test.e), "%+v", test.e)
		assert.Zero(t, testing.AllocsPerRun(10, func() { s.thresholdFor(&test.e) }))
	}
}

func TestARouteDecidesForBothEnds(t *testing.T) {
	s, i := exampleSampler(t, Sampling{Ratio: 0, Routes: []SampledRoute{{"/paid", 0.5}}}), noRandomness(t)
	kept := 0
	const exchanges = 2000
	for n := range exchanges {
		e := &Exchange{Role: RoleServer, FlowID: uint64(n + 1), Method: "GET", Target: "/paid"}
		server := i.identify(e)
		client := server
		keep := s.keep(e, &server)
		e.Role = RoleClient
		require.Equal(t, keep, s.keep(e, &client))
		if keep {
			kept++
		}
		e.Target = "/free"
		require.False(t, s.keep(e, &client))
	}
	assert.InDelta(t, exchanges/2, kept, 0.05*exchanges)

	e := &Exchange{FlowID: 1, Target: "/paid", TraceParent: "00-" + exampleTrace + "-" + exampleParent + "-00"}
	id := i.identify(e)
	assert.False(t, exampleSampler(t, Sampling{Ratio: 1, Routes: []SampledRoute{{"/paid", 1}}}).keep(e, &id),
		"the application's tracing did not sample it")
}

func TestSampledRoutesThatAreNone(t *testing.T) {
	for route, want := range map[string]string{
		"":                     "is neither a path",
		"healthz":              "is neither a path",
		"GET healthz":          "is neither a path",
		"GET a.Service/Method": "is neither a path",
		"get /healthz":         "has no method before its space",
		" /healthz":            "has no method before its space",
		"GET  /healthz":        "is neither a path",
		"/health*":             "has a * within the segment",
		"/a/*/b":               "has a * that is not its last segment",
		"/healthz?full":        "has a '?'",
		"a.Service//Method":    "has an empty segment",
		"a.Service/Method?x":   "has a '?'",
		"/{}":                  "has a placeholder without a name",
	} {
		err := ValidateSampledRoutes([]SampledRoute{{Route: "/fine", Ratio: 1}, {Route: route}})
		assert.ErrorContains(t, err, "routes[1].route: ", route)
		assert.ErrorContains(t, err, want, route)
		_, err = newSampler(Sampling{Routes: []SampledRoute{{Route: route}}})
		assert.Error(t, err, route)
	}
	for _, ratio := range []float64{-0.1, 1.1, math.NaN(), math.Inf(1)} {
		err := ValidateSampledRoutes([]SampledRoute{{Route: "/fine", Ratio: ratio}})
		assert.ErrorContains(t, err, "routes[0].ratio: must be between 0 and 1, got ")
	}
	assert.NoError(t, ValidateSampledRoutes([]SampledRoute{
		{"/", 0}, {"PURGE /a", 1}, {"/{a}/*", 0.5}, {"a.Service/Method", 0}, {"M-SEARCH /a_b", 0},
	}))
}

func TestATraceIsKeptFromItsBeginning(t *testing.T) {
	s, err := newSampler(Sampling{Ratio: 1, Routes: []SampledRoute{{Route: "/rare", Ratio: 0.25}, {Route: "/never", Ratio: 0}}})
	require.NoError(t, err)
	i := noRandomness(t)
	kept := 0
	for flow := range uint64(1000) {
		place := func(e *Exchange) identity {
			id := i.identify(e)
			id.threshold = max(id.threshold, s.thresholdFor(e))
			return id
		}
		server := &Exchange{Role: RoleServer, FlowID: 2*flow + 1, Target: "/rare"}
		server.id = place(server)
		client := &Exchange{Role: RoleClient, FlowID: 2*flow + 2, Target: "/often", origin: server.id}
		client.id = place(client)
		never := &Exchange{Role: RoleClient, FlowID: 2*flow + 2, Target: "/never", origin: server.id}
		never.id = place(never)
		next := &Exchange{Role: RoleServer, FlowID: client.FlowID, Target: "/often", origin: client.id}
		next.id = place(next)
		if s.keep(server, &server.id) {
			kept++
		}
		assert.Equal(t, server.id.sampled, s.keep(client, &client.id))
		assert.Equal(t, server.id.sampled, s.keep(next, &next.id))
		assert.False(t, s.keep(never, &never.id))
	}
	assert.InDelta(t, 250, kept, 50)
}
