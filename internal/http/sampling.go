//go:build linux

package http

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Sampling says which share of the traces has its spans reported. Metrics count all exchanges.
type Sampling struct {
	Ratio  float64        // 0 (nothing) to 1 (everything), of what no route is for
	Routes []SampledRoute // the first that matches decides
}

// SampledRoute is the share of the traces of some exchanges, on either end.
type SampledRoute struct {
	// Route is a path, which may have placeholders (see compileRoutes), or a method and a path, or the method of an RPC:
	// /healthz, GET /users/{id}, grpc.health.v1.Health/Check, grpc.health.v1.Health/*.
	Route string
	Ratio float64
}

// ValidateSampledRoutes checks routes and their ratios. Each error begins with its place in the list, routes[0].route and
// so on.
func ValidateSampledRoutes(routes []SampledRoute) error {
	_, err := compileSampledRoutes(routes)
	return err
}

func compileSampledRoutes(routes []SampledRoute) ([]sampledRoute, error) {
	var compiled []sampledRoute
	var errs []error
	for i, route := range routes {
		one, err := compileSampledRoute(route)
		compiled = append(compiled, one)
		if err != nil {
			errs = append(errs, fmt.Errorf("routes[%d].route: %q %w", i, route.Route, err))
		}
		if !(route.Ratio >= 0 && route.Ratio <= 1) { // so that it is not NaN either
			errs = append(errs, fmt.Errorf("routes[%d].ratio: must be between 0 and 1, got %v", i, route.Ratio))
		}
	}
	return compiled, errors.Join(errs...)
}

// sampler keeps a ratio of the traces, the same ones on all hosts: the decision is made of the trace id and the request
// alone, by the threshold of OpenTelemetry's consistent probability sampling (the last 56 bits of the id are random). It
// is not safe for concurrent use.
type sampler struct {
	threshold uint64 // what is below is not kept
	routes    []sampledRoute
	unsampled uint64 // exchanges that were not kept
}

// sampledRoute is a SampledRoute that can be compared with exchanges.
type sampledRoute struct {
	method    string // empty: any
	rpc       bool   // only calls of gRPC
	path      Routes // of the one pattern
	threshold uint64
}

func newSampler(sampling Sampling) (*sampler, error) {
	routes, err := compileSampledRoutes(sampling.Routes)
	if err != nil {
		return nil, err
	}
	return &sampler{threshold: thresholdOf(sampling.Ratio), routes: routes}, nil
}

func compileSampledRoute(route SampledRoute) (sampledRoute, error) {
	compiled := sampledRoute{threshold: thresholdOf(route.Ratio)}
	pattern := route.Route
	if method, path, found := strings.Cut(pattern, " "); found {
		if strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || method == "" {
			return sampledRoute{}, errors.New("has no method before its space: write it in capital letters, as in GET /healthz")
		}
		compiled.method, pattern = method, path
	}
	switch {
	case strings.HasPrefix(pattern, "/"):
	case compiled.method == "" && strings.Contains(pattern, "/"):
		compiled.rpc, pattern = true, "/"+pattern
	default:
		return sampledRoute{}, errors.New(
			"is neither a path (/healthz) nor a method and a path (GET /healthz) nor a method of gRPC (package.Service/Method)")
	}
	if err := compiled.path.insert(pattern); err != nil {
		return sampledRoute{}, err
	}
	return compiled, nil
}

// thresholdOf is the share of all 56-bit numbers that is not kept.
func thresholdOf(ratio float64) uint64 {
	const all = uint64(1) << 56
	switch {
	case ratio >= 1:
		return 0
	case ratio > 0:
		return all - uint64(ratio*float64(all))
	default:
		return all
	}
}

// keep decides whether an exchange is reported as a span, notes it in its identity, and counts it if it is not. What
// the application's own tracing did not sample is never kept; what it did sample is thinned out like all else. Nor is what
// comes from an exchange of this host that is not kept: a trace has no span whose parent is missing.
func (s *sampler) keep(e *Exchange, id *identity) bool {
	const low56 = uint64(1)<<56 - 1
	id.sampled = id.flags&flagSampled != 0 && binary.BigEndian.Uint64(id.trace[8:])&low56 >= max(id.threshold, s.thresholdFor(e))
	if !id.sampled {
		s.unsampled++
	}
	return id.sampled
}

func (s *sampler) thresholdFor(e *Exchange) uint64 {
	if len(s.routes) == 0 {
		return s.threshold
	}
	path, _ := splitTarget(e.Target)
	if !strings.HasPrefix(path, "/") {
		return s.threshold
	}
	for i := range s.routes {
		route := &s.routes[i]
		if (route.method == "" || route.method == e.Method) && (e.GRPC || !route.rpc) && route.path.root.match(path) != "" {
			return route.threshold
		}
	}
	return s.threshold
}
