// Command ebpfprofile shows profiles that the Collector's file exporter has written: as pprof for `go tool pprof`, and as a
// flame graph in one HTML file.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview"
)

// Exit codes.
const (
	exitGood  = 0
	exitBad   = 1 // nothing was written, or not all of it
	exitUsage = 2
)

const usage = `ebpfprofile: look at the profiles that the Collector's file exporter has written.

Usage:
  ebpfprofile [-html OUT] [-pprof OUT] [filters] FILE...

At least one of:
  -html OUT      a flame graph in one HTML file, which opens from disk and fetches nothing
  -pprof OUT     the form that "go tool pprof" reads; a type of values becomes a sample type

Filters:
  -process NAME  only processes with this executable, service, path, pid or container id (its first 12 digits will
                 do); a pattern such as 'python3*' is fine; may be given several times, one of which must match
  -type NAME     only values of this type, such as cpu, off_cpu or samples/count; may be given several times
  -span ID       only samples of this span (16 hexadecimal digits) or trace (32)

Others:
  -title TEXT    heading of the flame graph; else the names of the files

FILE is what the file exporter wrote: JSON or protobuf, compressed or not. "-" is standard input, and as OUT standard
output. Several files are summed up.

Examples:
  ebpfprofile -html profile.html profiles.json
  ebpfprofile -pprof cpu.pb.gz -type cpu -process nginx profiles.json && go tool pprof -top cpu.pb.gz
  ebpfprofile -html request.html -span 4bf92f3577b34da6a3ce929d0e0e4736 profiles.json
  zcat old-profiles.json.gz | ebpfprofile -html - - >old.html

Exit code: 0 if everything was written, 1 if not, 2 for wrong arguments.
`

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

type options struct {
	html, pprof, title string
	filter             profileview.Filter
	files              []string
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func run(arguments []string, stdin io.Reader, stdout, stderr io.Writer) int {
	chosen, err := parse(arguments)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitGood
	case err != nil:
		fmt.Fprintf(stderr, "ebpfprofile: %v\nRun \"ebpfprofile -h\" for help.\n", err)
		return exitUsage
	}
	if err := show(chosen, stdin, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "ebpfprofile: %v\n", err)
		return exitBad
	}
	return exitGood
}

func parse(arguments []string) (options, error) {
	var chosen options
	flags := flag.NewFlagSet("ebpfprofile", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints
	flags.StringVar(&chosen.html, "html", "", "")
	flags.StringVar(&chosen.pprof, "pprof", "", "")
	flags.StringVar(&chosen.title, "title", "", "")
	flags.StringVar(&chosen.filter.Span, "span", "", "")
	flags.Var((*list)(&chosen.filter.Processes), "process", "")
	flags.Var((*list)(&chosen.filter.Types), "type", "")
	if err := flags.Parse(arguments); err != nil {
		return chosen, err
	}
	chosen.files = flags.Args()
	var problems []error
	if len(chosen.files) == 0 {
		problems = append(
			problems,
			errors.New("which file to read? Name the path of the Collector's file exporter, or - for standard input"),
		)
	}
	if chosen.html == "" && chosen.pprof == "" {
		problems = append(problems, errors.New("what to write? Give -html OUT, -pprof OUT or both"))
	}
	if chosen.html == "-" && chosen.pprof == "-" {
		problems = append(problems, errors.New("-html and -pprof cannot both go to standard output"))
	}
	for _, output := range []string{chosen.html, chosen.pprof} {
		if output != "" && output != "-" && slices.Contains(chosen.files, output) {
			problems = append(problems, fmt.Errorf("%s cannot be read and written at once", output))
		}
	}
	if chosen.html != "" && chosen.html != "-" && chosen.html == chosen.pprof {
		problems = append(problems, errors.New("-html and -pprof cannot write the same file"))
	}
	return chosen, errors.Join(append(problems, chosen.filter.Validate())...)
}

func show(chosen options, stdin io.Reader, stdout, stderr io.Writer) error {
	profile := profileview.NewProfile()
	var notes []string
	for _, file := range chosen.files {
		missing, err := readFile(profile, file, stdin, chosen.filter)
		if err != nil {
			return err
		}
		notes = append(notes, missing...)
	}
	for _, reason := range slices.Sorted(maps.Keys(profile.Skipped)) {
		notes = append(notes, fmt.Sprintf("%d records of samples are left out: %s", profile.Skipped[reason], reason))
	}
	for _, note := range notes {
		fmt.Fprintf(stderr, "ebpfprofile: note: %s\n", note)
	}
	if profile.Samples == 0 {
		return nothingFound(profile, chosen)
	}
	if chosen.pprof != "" {
		converted, err := profile.Pprof()
		if err != nil {
			return err
		}
		if err := writeFile(chosen.pprof, stdout, converted.Write); err != nil {
			return err
		}
	}
	if chosen.html != "" {
		err := writeFile(chosen.html, stdout, func(output io.Writer) error {
			return profile.WritePage(output, chosen.heading(), notes)
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(stderr, "ebpfprofile: %d messages, %d records of samples, %d different stacks; %s\n",
		profile.Messages, profile.Samples, profile.Stacks(), totals(profile))
	return nil
}

// readFile adds a file's messages to the profile. It returns what is missing from it, in words.
func readFile(profile *profileview.Profile, path string, stdin io.Reader, filter profileview.Filter) ([]string, error) {
	source := stdin
	name := "standard input"
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read profiles: %w", err)
		}
		defer file.Close()
		source, name = file, path
	}
	reader, err := profileview.NewReader(source)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer reader.Close()
	broken := 0
	var firstBroken error
	for {
		message, err := reader.Next()
		var messageError *profileview.MessageError
		switch {
		case errors.Is(err, io.EOF):
			if broken == 0 {
				return nil, nil
			}
			return []string{fmt.Sprintf("%s: %d of its messages left out, the first because of %v", name, broken, firstBroken)}, nil
		case errors.As(err, &messageError):
			if broken++; firstBroken == nil {
				firstBroken = err
			}
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", name, err)
		default:
			profile.Add(message, filter)
		}
	}
}

// nothingFound says why there may be nothing to show, and what to do.
func nothingFound(profile *profileview.Profile, chosen options) error {
	files := strings.Join(chosen.files, ", ")
	filter := chosen.filter
	switch {
	case profile.Messages == 0:
		return fmt.Errorf("%s: no message could be read. Is it the path of a file exporter, and has a profiles pipeline sent "+
			"to it? The Collector needs --feature-gates=service.profilesSupport", files)
	case len(profile.Skipped) > 0:
		return fmt.Errorf("%s: all samples are left out, as the notes say", files)
	case len(filter.Processes) > 0 || len(filter.Types) > 0 || filter.Span != "":
		return fmt.Errorf("%s: no sample passes -process, -type and -span. Look at everything first, by leaving them out", files)
	default:
		return fmt.Errorf("%s: %d messages, but no sample of a profile. Is the file exporter in a profiles pipeline, rather than "+
			"in one of traces, metrics or logs?", files, profile.Messages)
	}
}

// writeFile writes to a file that nobody sees before it is complete.
func writeFile(path string, stdout io.Writer, write func(io.Writer) error) (err error) {
	if path == "-" {
		buffered := bufio.NewWriter(stdout)
		if err := errors.Join(write(buffered), buffered.Flush()); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
		return nil
	}
	if info, statErr := os.Stat(path); statErr == nil && !info.Mode().IsRegular() {
		return writeInPlace(path, write) // a pipe or a device cannot be replaced
	}
	// Not os.CreateTemp, whose files are their owner's alone: who may read this one is for the umask to say.
	temporary := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid()))
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
		}
	}()
	buffered := bufio.NewWriter(file)
	if err := errors.Join(write(buffered), buffered.Flush(), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeInPlace(path string, write func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(write(file), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (o options) heading() string {
	if o.title != "" {
		return o.title
	}
	names := make([]string, 0, len(o.files))
	for _, file := range o.files {
		if file == "-" {
			file = "standard input"
		}
		names = append(names, filepath.Base(file))
	}
	return strings.Join(names, ", ")
}

func totals(profile *profileview.Profile) string {
	var totals []string
	for _, valueType := range profile.Types() {
		totals = append(totals, fmt.Sprintf("%s %d", valueType, profile.Total(valueType)))
	}
	return strings.Join(totals, ", ")
}
