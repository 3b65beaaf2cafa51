//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"errors"
	"fmt"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

// validateRoutes checks the patterns where they can be used; key is the place of their list's parent in the configuration.
func validateRoutes(key string, patterns []string) error {
	return prefixed(key, http.ValidateRoutes(patterns))
}

// validateSampledRoutes does the same for the routes that have their own share of spans.
func validateSampledRoutes(key string, routes []SamplingRoute) error {
	return prefixed(key, http.ValidateSampledRoutes(sampledRoutes(routes)))
}

// validatePropagators does the same for the names of propagators.
func validatePropagators(key string, names []string) error {
	return prefixed(key, http.ValidatePropagators(names))
}

func sampledRoutes(configured []SamplingRoute) []http.SampledRoute {
	converted := make([]http.SampledRoute, 0, len(configured))
	for _, route := range configured {
		converted = append(converted, http.SampledRoute(route))
	}
	return converted
}

// prefixed puts a key before each of the joined errors.
func prefixed(key string, err error) error {
	var prefixed []error
	for _, err := range leaves(err) {
		prefixed = append(prefixed, fmt.Errorf("%s.%w", key, err))
	}
	return errors.Join(prefixed...)
}

// leaves takes joined errors apart.
func leaves(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	var all []error
	for _, part := range joined.Unwrap() {
		all = append(all, leaves(part)...)
	}
	return all
}
