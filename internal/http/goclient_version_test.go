//go:build linux

package http

import (
	"debug/buildinfo"
	"os"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

func TestGRPCVersion(t *testing.T) {
	other := &debug.Module{Path: "google.golang.org/grpc/examples", Version: "v1.2.3"}
	for name, test := range map[string]struct {
		module *debug.Module
		want   string
	}{
		"released": {&debug.Module{Path: grpcModule, Version: "v1.70.0"}, "v1.70.0"},
		"another version in its place": {
			&debug.Module{Path: grpcModule, Version: "v1.70.0", Replace: &debug.Module{Path: grpcModule, Version: "v1.60.1"}}, "v1.60.1",
		},
		"another module in its place": {
			&debug.Module{Path: grpcModule, Version: "v1.70.0", Replace: &debug.Module{Path: "example.org/fork", Version: "v1.70.0"}}, "",
		},
		"not there": {other, ""},
	} {
		t.Run(name, func(t *testing.T) {
			version, err := grpcVersion([]*debug.Module{other, test.module})
			assert.Equal(t, test.want, version)
			if test.want == "" {
				require.ErrorIs(t, err, site.ErrUnsupported)
				return
			}
			require.NoError(t, err)
		})
	}
}

// The modules that functions belong to are known of a stripped program, and no others.
func TestModulesOfFunctions(t *testing.T) {
	opened, err := os.Open(buildNumbered(t, "-s -w"))
	require.NoError(t, err)
	defer opened.Close()
	program, err := site.Go(opened, goClientFunctions()...)
	require.NoError(t, err)
	info, err := buildinfo.Read(opened)
	require.NoError(t, err)
	at := slices.IndexFunc(info.Deps, func(module *debug.Module) bool { return module.Path == grpcModule })
	require.GreaterOrEqual(t, at, 0)
	version, err := grpcVersion(program.Modules)
	require.NoError(t, err)
	assert.Equal(t, info.Deps[at].Version, version)
	assert.Len(t, program.Modules, 1)
}
