//go:build linux

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// `validate` names every wrong key by its path, with what it may be.
func TestValidate(t *testing.T) {
	text, err := validate(t, `
    select:
      include: [{port: 99999}, {executable: "/usr/bin/["}]
      exclude: [{}]
    tcp: {snapshot_interval: 1ms}
    metrics: {temporality: sometimes, max_series: 0}
    kernel: {ring_bytes: 1}
    process: {procfs: proc}`)
	assert.Error(t, err)
	for _, expected := range []string{
		`receivers::ebpf`,
		`select.include[0].port: "99999": out of range; want a port such as "8080" or a range such as "8080-8090", from 1 to 65535`,
		`select.include[1].executable: "/usr/bin/[" is not a valid pattern`,
		`select.exclude[0]: the rule is empty; set at least one of executable, port, pid, cgroup, container_id`,
		`tcp.snapshot_interval: must be between 100ms and 1h, got 1ms`,
		`metrics.temporality: must be "cumulative" or "delta", got "sometimes"`,
		`metrics.max_series: must be between 1 and 10000000, got 0`,
		`kernel.ring_bytes: must be between 65536 and 268435456, got 1`,
		`process.procfs: must be an absolute path, got "proc"`,
	} {
		assert.Contains(t, text, expected)
	}

	text, err = validate(t, " {tcp: {snapshot_intervall: 1s}}")
	assert.Error(t, err)
	assert.Contains(t, text, "snapshot_intervall")

	text, err = validate(t, " {}")
	assert.NoError(t, err, text)
}
