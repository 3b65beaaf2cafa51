//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"errors"
	"fmt"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

// validateRoutes checks the patterns where they can be used; key is the place of their list's parent in the configuration.
func validateRoutes(key string, patterns []string) error {
	var prefixed []error
	for _, err := range leaves(http.ValidateRoutes(patterns)) {
		prefixed = append(prefixed, fmt.Errorf("%s.%w", key, err))
	}
	return errors.Join(prefixed...)
}
