//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report prints results as they come and keeps them.
type report struct {
	output    io.Writer
	Time      time.Time
	Kernel    string
	CPUs      int
	Scenarios []*scenarioReport
}

type scenarioReport struct {
	Name    string
	Tables  []table
	Targets []target
}

type table struct {
	Title  string
	Header []string
	Rows   [][]string
}

// target is what was asked for, and what came of it.
type target struct {
	Name, Wanted, Measured string
	Met                    bool
}

func newReport(output io.Writer) *report {
	r := &report{output: output, Time: time.Now().UTC(), Kernel: kernelRelease(), CPUs: runtime.NumCPU()}
	fmt.Fprintf(output, "kernel %s, %d processors, %s, load %s\n", r.Kernel, r.CPUs, r.Time.Format(time.RFC3339), load())
	return r
}

func (r *report) begin(name, question string) {
	fmt.Fprintf(r.output, "\n== %s: %s\n", name, question)
	r.Scenarios = append(r.Scenarios, &scenarioReport{Name: name})
}

func (r *report) current() *scenarioReport { return r.Scenarios[len(r.Scenarios)-1] }

// progress tells that something is going on, without keeping it.
func (r *report) progress(format string, arguments ...any) {
	fmt.Fprintf(r.output, "   "+format+"\n", arguments...)
}

func (r *report) table(title string, header []string, rows [][]string) {
	r.current().Tables = append(r.current().Tables, table{title, header, rows})
	fmt.Fprintf(r.output, "\n%s\n", title)
	writer := tabwriter.NewWriter(r.output, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		fmt.Fprintln(writer, "  "+strings.Join(row, "\t"))
	}
	_ = writer.Flush() // it fails only where the prints above do
}

func (r *report) target(name, wanted, measured string, met bool) {
	made := target{name, wanted, measured, met}
	r.current().Targets = append(r.current().Targets, made)
	fmt.Fprintln(r.output, made)
}

func (t target) String() string {
	verdict := "missed"
	if t.Met {
		verdict = "met"
	}
	return fmt.Sprintf("target %s: %s, measured %s: %s", t.Name, t.Wanted, t.Measured, verdict)
}

func (r *report) summary() {
	fmt.Fprintln(r.output, "\n== targets")
	for _, s := range r.Scenarios {
		for _, t := range s.Targets {
			fmt.Fprintf(r.output, "%-8s %s\n", s.Name, t)
		}
	}
}

func (r *report) writeJSON(file string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.WriteFile(file, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(content))[:3], " ")
}
