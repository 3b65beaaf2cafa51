//go:build linux

package http

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

func TestReadProgram(t *testing.T) {
	own, err := readProgram("/proc/self/exe")
	require.NoError(t, err)
	assert.Equal(t, schedulingGoroutines, own.by)

	other, err := readProgram("/bin/sh")
	require.NoError(t, err)
	assert.Equal(t, schedulingThreads, other.by)

	none := filepath.Join(t.TempDir(), "none")
	require.NoError(t, os.WriteFile(none, []byte("#!/bin/sh\n"), 0o700))
	_, err = readProgram(none)
	assert.Error(t, err)
	_, err = readProgram(none + "/")
	assert.Error(t, err)
}
