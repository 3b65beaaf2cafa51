package flamegraph

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview/profiletest"
)

const rowHeight = 20 // of a frame, in CSS pixels

// expected is what a flame graph has to show, computed from the samples as they were written down and by nothing else.
type expected struct {
	children map[string]*expected
	total    int64
	self     int64
}

func expect(samples []profiletest.Sample, take func(profiletest.Sample) bool) *expected {
	root := &expected{children: map[string]*expected{}}
	for _, sample := range samples {
		if !take(sample) {
			continue
		}
		at := root
		at.total += sample.Count
		for _, name := range path(sample) {
			if at.children[name] == nil {
				at.children[name] = &expected{children: map[string]*expected{}}
			}
			at = at.children[name]
			at.total += sample.Count
		}
		at.self += sample.Count
	}
	return root
}

func path(sample profiletest.Sample) []string {
	name := sample.Process.Executable
	if service := sample.Process.Service; service != "" && service != name {
		name = service + " (" + name + ")"
	}
	names := []string{name}
	for _, frame := range sample.Stack {
		if frame.Name == "" {
			parts := strings.Split(frame.Module, "/")
			names = append(names, fmt.Sprintf("[%s+0x%x]", parts[len(parts)-1], frame.Address-0x400000))
			continue
		}
		names = append(names, frame.Name)
		for _, inlined := range frame.Inlined {
			names = append(names, inlined.Name)
		}
	}
	return names
}

// find returns the frame at the end of a path, and where it begins, as a share of the whole width.
func (e *expected) find(path ...string) (found *expected, start float64) {
	at, before := e, int64(0)
	for _, name := range path {
		for other, child := range at.children {
			if other < name {
				before += child.total
			}
		}
		if at = at.children[name]; at == nil {
			panic("the test's own samples have no " + name)
		}
	}
	return at, float64(before) / float64(e.total)
}

// middle is a place in the frame at the end of a path.
func (e *expected) middle(path ...string) (share float64, row int) {
	found, start := e.find(path...)
	return start + float64(found.total)/float64(e.total)/2, len(path)
}

func ofType(name string) func(profiletest.Sample) bool {
	return func(sample profiletest.Sample) bool { return sample.Type == name }
}

func share(part, whole int64) string {
	percent := 100 * float64(part) / float64(whole)
	if percent >= 99.995 {
		return "100 %"
	}
	if part == 0 {
		return "0 %"
	}
	digits := 1
	if percent < 10 {
		digits = 2
	}
	return strconv.FormatFloat(percent, 'f', digits, 64) + " %"
}

func quoted(text string) string { return strconv.Quote(text) }

// matching is the value of the samples with a frame that a test takes.
func matching(samples []profiletest.Sample, take func(name string) bool) int64 {
	value := int64(0)
	for _, sample := range samples {
		if sample.Type == "" && slices.ContainsFunc(path(sample), take) {
			value += sample.Count
		}
	}
	return value
}
