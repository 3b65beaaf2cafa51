// Command ebpfreceiver holds small tools for the people who run the receiver.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// Exit codes.
const (
	exitGood  = 0
	exitBad   = 1 // the host does not do
	exitUsage = 2
)

const usage = `ebpfreceiver: tools for the people who run the OpenTelemetry Collector's eBPF receiver.

Usage:
  ebpfreceiver doctor [-btf FILE]   say what this host supports, and why not more
  ebpfreceiver help                 this text

Exit code of doctor: 0 if TCP metrics and flow logs work on this host, 1 if they do not.
`

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(arguments []string, stdout, stderr io.Writer) int {
	if len(arguments) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	switch command := arguments[0]; command {
	case "doctor":
		return runDoctor(arguments[1:], stdout, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return exitGood
	default:
		fmt.Fprintf(stderr, "ebpfreceiver: unknown command %q\n\n%s", command, usage)
		return exitUsage
	}
}

func runDoctor(arguments []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ebpfreceiver doctor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	btfPath := flags.String("btf", "", "a `file` with the running kernel's type information, as in the receiver's kernel::btf")
	switch err := flags.Parse(arguments); {
	case errors.Is(err, flag.ErrHelp):
		return exitGood
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "ebpfreceiver doctor: unexpected argument %q\n", flags.Arg(0))
		flags.Usage()
		return exitUsage
	}
	return examine(*btfPath, stdout, stderr)
}
