//go:build linux

// Package doctor says what this host supports, in a table for people.
package doctor

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// State is how well a host does in one row.
type State string

// The states of a row.
const (
	Good    State = "yes"  // the best way there is
	Reduced State = "part" // works, with less than on other hosts
	Missing State = "no"
	Note    State = "-" // nothing depends on it
)

// Row is one line of the table.
type Row struct {
	Capability string
	State      State
	Rung       string // what this host gets
	WhyNot     string // why it does not get better, or what is worth knowing
}

// Report is the doctor's table with its conclusion.
type Report struct {
	Rows []Row

	// Obstacles are what keeps TCP metrics and flow logs from working, empty where they work.
	Obstacles []string
}

// BasicsWork reports whether TCP metrics and flow logs work on this host.
func (r Report) BasicsWork() bool { return len(r.Obstacles) == 0 }

// Conclusion is the last line, in plain words.
func (r Report) Conclusion() string {
	if r.BasicsWork() {
		return "TCP metrics and flow logs work on this host."
	}
	return "TCP metrics and flow logs do not work on this host: " + strings.Join(r.Obstacles, "; ") + "."
}

// Write prints the table and the conclusion.
func (r Report) Write(output io.Writer) error {
	table := tabwriter.NewWriter(output, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CAPABILITY\tWORKS\tTHIS HOST GETS\tWHY NOT BETTER")
	for _, row := range r.Rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", row.Capability, row.State, orDash(row.Rung), row.WhyNot)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	if _, err := fmt.Fprintf(output, "\n%s\n", r.Conclusion()); err != nil {
		return fmt.Errorf("print the conclusion: %w", err)
	}
	return nil
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
