//go:build linux

package kerneltest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// recorder is a testing.TB that notes how a test would have ended.
type recorder struct {
	testing.TB
	ending string
}

type ended struct{}

func (r *recorder) Helper() {}

func (r *recorder) end(how, message string) {
	r.ending = how + ": " + message
	panic(ended{})
}

func (r *recorder) Skip(arguments ...any) { r.end("skip", fmt.Sprint(arguments...)) }
func (r *recorder) Skipf(format string, arguments ...any) {
	r.end("skip", fmt.Sprintf(format, arguments...))
}
func (r *recorder) Fatal(arguments ...any) { r.end("fail", fmt.Sprint(arguments...)) }
func (r *recorder) Fatalf(format string, arguments ...any) {
	r.end("fail", fmt.Sprintf(format, arguments...))
}

func TestRequireFeature(t *testing.T) {
	for name, test := range map[string]struct {
		answer error
		want   string // how the test ends
	}{
		"yes":                     {nil, ""},
		"a kernel that is older":  {&kernel.UnsupportedError{Feature: "thing", Floor: "999.0"}, "skip"},
		"a kernel that should":    {&kernel.UnsupportedError{Feature: "thing", Floor: "2.6"}, "fail"},
		"a kernel built without":  {&kernel.UnsupportedError{Feature: "thing", Floor: "2.6", Config: "CONFIG_NO_SUCH_OPTION"}, "skip"},
		"a kernel that refuses":   {&kernel.UnsupportedError{Feature: "thing", Floor: "2.6", Refused: true}, "skip"},
		"a fault":                 {errors.New("out of memory"), "fail"},
		"a missing permission":    {&kernel.PermissionError{Doing: "probe", Err: errors.New("EPERM")}, "fail"},
		"a wrapped kernel answer": {fmt.Errorf("x: %w", &kernel.UnsupportedError{Feature: "thing", Floor: "999.0"}), "skip"},
	} {
		t.Run(name, func(t *testing.T) {
			record := &recorder{TB: t}
			func() {
				defer func() {
					if reason := recover(); reason != nil && reason != (ended{}) {
						panic(reason)
					}
				}()
				RequireFeature(record, test.answer)
			}()
			if (test.want == "") != (record.ending == "") || test.want != "" && record.ending[:4] != test.want {
				t.Errorf("ended with %q, want %q", record.ending, test.want)
			}
		})
	}
}

func TestIsOlder(t *testing.T) {
	for _, test := range []struct {
		release, floor string
		older, fails   bool
	}{
		{"5.10.0-28-amd64", "5.11", true, false},
		{"5.10.0-28-amd64", "5.10", false, false},
		{"6.1", "5.19", false, false},
		{"6.1", "6.2", true, false},
		{"4.19.0", "5.2", true, false},
		{"linux", "5.2", false, true},
		{"6.1", "soon", false, true},
	} {
		older, err := isOlder(test.release, test.floor)
		if older != test.older || (err != nil) != test.fails {
			t.Errorf("isOlder(%q, %q) = %v, %v", test.release, test.floor, older, err)
		}
	}
}
