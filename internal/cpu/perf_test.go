//go:build linux

package cpu

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseCPUs(t *testing.T) {
	tests := map[string][]int{
		"0\n": {0}, "0-3\n": {0, 1, 2, 3}, "0,2\n": {0, 2}, "0-1,4-5,7\n": {0, 1, 4, 5, 7}, "65535": {65535},
		"": nil, "\n": nil, ",": nil, "-": nil, "3-1": nil, "a": nil, "0-a": nil, "-1": nil, "0-65536": nil, "0-4294967295": nil,
		"99999999999999999999": nil, "1 2": nil,
	}
	for list, want := range tests {
		t.Run(list, func(t *testing.T) {
			cpus, err := parseCPUs(list)
			if want == nil {
				require.ErrorContains(t, err, "read a list of CPUs")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, want, cpus)
		})
	}
}

func FuzzParseCPUs(f *testing.F) {
	for _, list := range []string{"0\n", "0-3,6\n", "", "3-1", "0-65535,0-65535"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		cpus, err := parseCPUs(list)
		if (err == nil) != (len(cpus) > 0) {
			t.Errorf("%d CPUs and %v", len(cpus), err)
		}
		if len(cpus) > 0 && (slices.Min(cpus) < 0 || slices.Max(cpus) >= maxCPU) {
			t.Errorf("CPUs from %d to %d", slices.Min(cpus), slices.Max(cpus))
		}
		if len(cpus) > maxCPU {
			t.Errorf("%d CPUs", len(cpus))
		}
	})
}
