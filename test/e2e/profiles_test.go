//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal/profile/profilecheck"
)

// stackSample is a sample of a profile.
type stackSample struct {
	fields      fields
	resource    fields
	kind        string   // of the profile
	frames      []string // functions, the innermost first
	frameTypes  []string
	trace, span string // empty: none
	value       int
}

func (s stackSample) in(function string) bool { return slices.Contains(s.frames, function) }

// samples are those that the Collector has written; each message follows all rules.
func (e *exports) samples(t *testing.T) []stackSample {
	t.Helper()
	e.mutex.Lock()
	defer e.mutex.Unlock()
	var decoder pprofile.JSONUnmarshaler
	for _, line := range e.newLines(t, e.path("profiles", "ebpf")) {
		profiles, err := decoder.UnmarshalProfiles(line)
		require.NoError(t, err)
		require.Empty(t, profilecheck.Check(profiles))
		for _, resource := range profiles.ResourceProfiles().All() {
			for _, scope := range resource.ScopeProfiles().All() {
				for _, profile := range scope.Profiles().All() {
					for _, sample := range profile.Samples().All() {
						read := readSample(profiles.Dictionary(), profile, sample)
						read.resource = resource.Resource().Attributes().AsRaw()
						e.allSamples = append(e.allSamples, read)
					}
				}
			}
		}
	}
	return e.allSamples
}

func readSample(dictionary pprofile.ProfilesDictionary, profile pprofile.Profile, sample pprofile.Sample) stackSample {
	text := func(index int32) string { return dictionary.StringTable().At(int(index)) }
	read := stackSample{fields: fields{}, kind: text(profile.SampleType().TypeStrindex()), value: int(sample.Values().At(0))}
	for _, index := range sample.AttributeIndices().All() {
		attribute := dictionary.AttributeTable().At(int(index))
		read.fields[text(attribute.KeyStrindex())] = attribute.Value().AsRaw()
	}
	if index := sample.LinkIndex(); index != 0 {
		link := dictionary.LinkTable().At(int(index))
		read.trace, read.span = link.TraceID().String(), link.SpanID().String()
	}
	for _, index := range dictionary.StackTable().At(int(sample.StackIndex())).LocationIndices().All() {
		location := dictionary.LocationTable().At(int(index))
		for _, line := range location.Lines().All() {
			read.frames = append(read.frames, text(dictionary.FunctionTable().At(int(line.FunctionIndex())).NameStrindex()))
		}
		for _, index := range location.AttributeIndices().All() {
			read.frameTypes = append(read.frameTypes, dictionary.AttributeTable().At(int(index)).Value().Str())
		}
	}
	return read
}

// startBurner builds and starts testdata/burner.
func startBurner(t *testing.T) (address string, pid int) {
	binary := filepath.Join(t.TempDir(), "burner")
	output, err := exec.Command("go", "build", "-o", binary, "testdata/burner/main.go").CombinedOutput()
	require.NoError(t, err, string(output))
	server := start(t, "burner", []string{binary})
	return "http://127.0.0.1:" + server.line(t), server.pid()
}

// A sample that was taken while a goroutine served a request, or one that it has started did, has the span of that request.
func TestProfilesKnowTheRequestsThatTheyWereTakenIn(t *testing.T) {
	address, pid := startBurner(t)
	c := startCollector(t, setup{receivers: map[string]string{"ebpf": quick + `
    http: {enabled: true}
    cpu: {frequency: 499}
    profiles: {interval: 1s, threads: true}`}})

	begin := time.Now()
	requests := 0
	for time.Since(begin) < 5*time.Second {
		for _, path := range []string{"/here", "/elsewhere"} {
			response, err := http.Get(address + path)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			requests++
		}
	}
	time.Sleep(time.Second) // the server is idle at the end
	c.shutdown(t)

	paths := map[string]string{} // by span
	for _, s := range c.spans(t, func(s span) bool { return s.kind == ptrace.SpanKindServer && s.number("process.pid") == pid }) {
		paths[s.trace+s.id] = s.text("url.path")
	}
	assert.Len(t, paths, requests)
	linked, all := map[string]int{}, map[string]int{}
	for _, s := range c.samples(t) {
		if s.fields.number("process.pid") != pid {
			continue
		}
		assert.Equal(t, "samples", s.kind)
		assert.Equal(t, "burner", s.resource.text("service.name"))
		assert.NotEmpty(t, s.fields.text("thread.name"))
		for function, path := range map[string]string{"main.burnHere": "/here", "main.burnElsewhere": "/elsewhere"} {
			if !s.in(function) {
				continue
			}
			all[path] += s.value
			if s.span == "" {
				continue
			}
			linked[path] += s.value
			assert.Equal(t, path, paths[s.trace+s.span], "the span of another request, in %v", s.frames)
		}
	}
	for _, path := range []string{"/here", "/elsewhere"} {
		assert.Greater(t, all[path], 200, path)
		// What ran in the first second, before it was known that the process serves requests, has no span.
		assert.Greater(t, float64(linked[path]), 0.7*float64(all[path]), "%s: %d of %d samples have a span", path, linked[path], all[path])
	}
}

// Everything that runs is seen, with whole stacks: this test's own program too, and the kernel.
func TestProfilesOfTheHost(t *testing.T) {
	c := startCollector(t, setup{receivers: map[string]string{"ebpf": quick + `
    cpu: {frequency: 499}
    off_cpu: {enabled: true}
    profiles: {interval: 500ms}`}})
	busy := start(t, "dd", []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=1M"})
	sleeper := start(t, "sleep", []string{"sh", "-c", "while :; do sleep 0.01; done"})
	time.Sleep(3 * time.Second)
	c.shutdown(t)

	ran, whole, waited := 0, 0, 0
	for _, s := range c.samples(t) {
		switch {
		case s.fields.number("process.pid") == busy.pid() && s.kind == "samples":
			ran += s.value
			if !s.fields.has("profile.stack.incomplete") {
				whole += s.value
				// The program has no symbols, but the library has that begins it.
				assert.Contains(t, s.frames, "__libc_start_main", fmt.Sprint(s.frames))
			}
		case s.fields.number("process.pid") == sleeper.pid() && s.kind == "off_cpu":
			waited += s.value
			assert.Contains(t, []string{"wait", "preempted"}, s.fields.text("profile.off_cpu.reason"))
		}
	}
	assert.Greater(t, ran, 300)
	assert.Greater(t, float64(whole), 0.8*float64(ran), "but for the time until dd was known")
	assert.Greater(t, time.Duration(waited), time.Second, "the shell waits for its children")
}
