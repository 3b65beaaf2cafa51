//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"errors"
	"fmt"

	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// validate checks the rules where they can be used; key is the place of the selection in the configuration.
func (s SelectConfig) validate(key string) error {
	var prefixed []error
	for _, err := range leaves(s.selection().Validate()) {
		prefixed = append(prefixed, fmt.Errorf("%s.%w", key, err))
	}
	return errors.Join(prefixed...)
}

func (s SelectConfig) selection() workload.Selection {
	return workload.Selection{Include: rules(s.Include), Exclude: rules(s.Exclude)}
}

func rules(configured []SelectRule) []workload.Rule {
	converted := make([]workload.Rule, 0, len(configured))
	for _, rule := range configured {
		converted = append(converted, workload.Rule(rule))
	}
	return converted
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
