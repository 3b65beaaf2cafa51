package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		arguments      []string
		code           int
		stdout, stderr string // parts
	}{
		"nothing":                {nil, exitUsage, "", "Usage:"},
		"help":                   {[]string{"help"}, exitGood, "Usage:", ""},
		"-h":                     {[]string{"-h"}, exitGood, "Usage:", ""},
		"an unknown command":     {[]string{"nurse"}, exitUsage, "", `unknown command "nurse"`},
		"an unknown flag":        {[]string{"doctor", "-x"}, exitUsage, "", "flag provided but not defined: -x"},
		"a flag without a value": {[]string{"doctor", "-btf"}, exitUsage, "", "flag needs an argument: -btf"},
		"an argument too many":   {[]string{"doctor", "now"}, exitUsage, "", `unexpected argument "now"`},
		"help of doctor":         {[]string{"doctor", "-h"}, exitGood, "", "-btf file"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if code := run(test.arguments, &stdout, &stderr); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.Contains(stdout.String(), test.stdout) || (test.stdout == "") != (stdout.Len() == 0) {
				t.Errorf("printed %q", stdout.String())
			}
			if !strings.Contains(stderr.String(), test.stderr) || (test.stderr == "") != (stderr.Len() == 0) {
				t.Errorf("complained %q", stderr.String())
			}
		})
	}
}
