//go:build linux

package http

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
)

func TestGoLayoutOf(t *testing.T) {
	for goVersion, want := range map[string]goLayout{
		"go1.20.14":           {152, 0},
		"go1.21.0":            {152, 272},
		"go1.22rc1":           {152, 272},
		"go1.23.12":           {160, 280},
		"go1.24":              {160, 280},
		"go1.25.5 X:nodwarf5": {152, 272},
		"go1.26.8":            {152, 280},
		"go1.19.13":           {},
		"go1.27.0":            {},
		"go1.260":             {},
		"devel go1.26-a1b2c3": {},
		"":                    {},
	} {
		layout, known := goLayoutOf(goVersion)
		assert.Equal(t, want, layout, goVersion)
		assert.Equal(t, want != goLayout{}, known, goVersion)
	}
}

func TestSchedulingOf(t *testing.T) {
	for name, test := range map[string]struct {
		program tls.Program
		want    scheduling
	}{
		"not read":              {tls.Program{}, schedulingUnknown},
		"no Go":                 {tls.Program{Known: true}, schedulingThreads},
		"Go":                    {tls.Program{Known: true, Go: true, GoVersion: "go1.26.1", GoArch: runtime.GOARCH}, schedulingGoroutines},
		"Go of no known kind":   {tls.Program{Known: true, Go: true}, schedulingUnknown},
		"Go that is too new":    {tls.Program{Known: true, Go: true, GoVersion: "go1.99.1"}, schedulingUnknown},
		"Go of another machine": {tls.Program{Known: true, Go: true, GoVersion: "go1.26.1", GoArch: "riscv64"}, schedulingUnknown},
	} {
		by, layout := schedulingOf(&test.program)
		assert.Equal(t, test.want, by, name)
		assert.Equal(t, test.want == schedulingGoroutines, layout != goLayout{}, name)
	}
}
