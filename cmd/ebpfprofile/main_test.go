package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview/profiletest"
)

func input(t *testing.T) []byte {
	t.Helper()
	marshaler := pprofile.JSONMarshaler{}
	content, err := marshaler.MarshalProfiles(profiletest.Build(profiletest.Mixed()))
	require.NoError(t, err)
	return append(content, '\n')
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func total(profile *profile.Profile, column int) (total int64) {
	for _, sample := range profile.Sample {
		total += sample.Value[column]
	}
	return total
}

func TestBothForms(t *testing.T) {
	file := write(t, "profiles.json", input(t))
	html, pprof := filepath.Join(t.TempDir(), "out.html"), filepath.Join(t.TempDir(), "out.pb.gz")
	var stdout, stderr bytes.Buffer
	require.Equal(
		t,
		exitGood,
		run([]string{"-html", html, "-pprof", pprof, file, file}, nil, &stdout, &stderr),
		stderr.String(),
	)
	assert.Empty(t, stdout.String())
	assert.Contains(t, stderr.String(), "2 messages")

	content, err := os.ReadFile(pprof)
	require.NoError(t, err)
	converted, err := profile.ParseData(content)
	require.NoError(t, err)
	assert.Contains(t, stderr.String(), fmt.Sprintf("samples/count %d", total(converted, 0)))
	page, err := os.ReadFile(html)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(page), "<!doctype html>"))
	left, err := filepath.Glob(filepath.Join(filepath.Dir(html), ".*"))
	require.NoError(t, err)
	assert.Empty(t, left, "temporary files")
}

func TestStandardStreams(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Equal(
		t,
		exitGood,
		run([]string{"-pprof", "-", "-type", "samples", "-process", "nginx", "-"}, bytes.NewReader(input(t)), &stdout, &stderr),
	)
	converted, err := profile.ParseData(stdout.Bytes())
	require.NoError(t, err)
	require.Len(t, converted.SampleType, 1)
	assert.Equal(t, int64(41+42+2*(22+9+5)), total(converted, 0))
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitGood, run([]string{"-h"}, nil, &stdout, &stderr))
	assert.Equal(t, usage, stdout.String())
	assert.Empty(t, stderr.String())
	flagLine := 0
	for _, line := range strings.Split(usage, "\n") {
		assert.LessOrEqual(t, len(line), 125)
		if strings.HasPrefix(line, "  -") {
			flagLine++
		}
	}
	assert.Equal(t, 6, flagLine, "flags in the help")
}

func TestWrongArguments(t *testing.T) {
	for _, test := range []struct {
		arguments []string
		want      string
	}{
		{nil, "which file to read?"},
		{[]string{"profiles.json"}, "what to write?"},
		{[]string{"-html", "-", "-pprof", "-", "x"}, "cannot both go to standard output"},
		{[]string{"-html", "x", "-pprof", "x", "y"}, "cannot write the same file"},
		{[]string{"-html", "x", "x"}, "cannot be read and written at once"},
		{[]string{"-span", "abc", "-html", "x", "y"}, "span id of 16"},
		{[]string{"-process", "[", "-html", "x", "y"}, "is not closed"},
		{[]string{"-unknown"}, "-unknown"},
	} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, exitUsage, run(test.arguments, nil, &stdout, &stderr))
		assert.Contains(t, stderr.String(), test.want)
		assert.Contains(t, stderr.String(), "ebpfprofile -h")
	}
}

// What cannot be shown says why, and writes nothing.
func TestNothingToShow(t *testing.T) {
	marshaler := ptrace.JSONMarshaler{}
	traces := ptrace.NewTraces()
	traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetName("GET /")
	otherSignal, err := marshaler.MarshalTraces(traces)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		content   []byte
		arguments []string
		want      string
	}{
		"empty":          {nil, nil, "service.profilesSupport"},
		"other signal":   {append(otherSignal, '\n'), nil, "no sample of a profile"},
		"filtered":       {input(t), []string{"-process", "absent"}, "no sample passes"},
		"not a file":     {[]byte("#!/bin/sh\necho nothing of this kind\n"), nil, "no output of the Collector's file exporter"},
		"broken message": {[]byte(`{"resourceProfiles":[` + "\n"), nil, "no message could be read"},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, "profiles.json", test.content)
			html := filepath.Join(t.TempDir(), "out.html")
			var stdout, stderr bytes.Buffer
			assert.Equal(t, exitBad, run(append(test.arguments, "-html", html, file), nil, &stdout, &stderr))
			assert.Contains(t, stderr.String(), test.want)
			assert.Contains(t, stderr.String(), file)
			assert.NoFileExists(t, html)
		})
	}
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitBad, run([]string{"-html", "x", "/absent/profiles.json"}, nil, &stdout, &stderr))
	assert.Contains(t, stderr.String(), "/absent/profiles.json: no such file")
	stderr.Reset()
	assert.Equal(t, exitBad, run([]string{"-html", "/absent/x", "-"}, bytes.NewReader(input(t)), &stdout, &stderr))
	assert.Contains(t, stderr.String(), "write /absent/x")
}

// A message that is cut short does not hide the others, nor is it hidden.
func TestCutShort(t *testing.T) {
	content := append(input(t), input(t)[:1000]...)
	var stdout, stderr bytes.Buffer
	require.Equal(t, exitGood, run([]string{"-html", "-", write(t, "live.json", content)}, nil, &stdout, &stderr))
	assert.Contains(t, stderr.String(), "1 of its messages left out")
	assert.Contains(t, stderr.String(), "the Collector may be still writing to it")
	assert.Contains(t, stdout.String(), "<!doctype html>")
}
