//go:build linux && (amd64 || arm64)

package ebpfreceiver

import "github.com/ebpfreceiver/ebpfreceiver/internal/workload"

// validate checks the rules where they can be used; key is the place of the selection in the configuration.
func (s SelectConfig) validate(key string) error {
	return prefixed(key, s.selection().Validate())
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
