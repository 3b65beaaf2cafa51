//go:build linux

package workload

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Every value that leaves this file is valid UTF-8 (OTLP's strings have to be) and bounded.
const (
	maxCommandLineBytes    = 2048
	maxCommandBytes        = 512
	maxPathBytes           = 4096
	maxCommBytes           = 64
	maxAttributeValueBytes = 1024
	maxAttributeKeyBytes   = 255
	maxAttributes          = 64
)

// stat is the part of /proc/PID/stat that identifies a process.
type stat struct {
	comm         string
	state        byte
	parentPID    uint32
	kernelThread bool
	threads      uint64
	startTicks   uint64 // since boot, in USER_HZ
}

// exited tells whether the process has given back its memory: its executable and arguments can no longer be read.
func (s stat) exited() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

const kernelThreadFlag = 0x00200000 // PF_KTHREAD of include/linux/sched.h

// ParseStartTicks reads from the content of /proc/PID/stat when the process began, in clock ticks since the boot.
func ParseStartTicks(content []byte) (uint64, error) {
	parsed, err := parseStat(content)
	return parsed.startTicks, err
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The name may hold spaces and parentheses; all that follows the
// last parenthesis is numbers.
func parseStat(content []byte) (stat, error) {
	open := bytes.IndexByte(content, '(')
	end := bytes.LastIndexByte(content, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("no process name in parentheses")
	}
	fields := bytes.Fields(content[end+1:])
	// Numbers of proc_pid_stat(5): the state is field 3, the first after the name.
	const firstField, parent, flags, threads, startTime = 3, 4, 9, 20, 22
	// One more has to follow: the start time may be cut off within its digits.
	if want := startTime - firstField + 2; len(fields) < want {
		return stat{}, fmt.Errorf("%d fields after the process name, want at least %d", len(fields), want)
	}
	if len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("process state %q is not one letter", clean(fields[0], 16))
	}
	parsed := stat{
		comm:  clean(unescapeComm(content[open+1:end]), maxCommBytes),
		state: fields[0][0],
	}
	number := func(field, bits int) (uint64, error) {
		value, err := strconv.ParseUint(string(fields[field-firstField]), 10, bits)
		if err != nil {
			return 0, fmt.Errorf("field %d: %w", field, err)
		}
		return value, nil
	}
	parentPID, err := number(parent, 32)
	if err != nil {
		return stat{}, err
	}
	flagBits, err := number(flags, 64)
	if err != nil {
		return stat{}, err
	}
	if parsed.threads, err = number(threads, 64); err != nil {
		return stat{}, err
	}
	if parsed.startTicks, err = number(startTime, 64); err != nil {
		return stat{}, err
	}
	parsed.parentPID = uint32(parentPID)
	parsed.kernelThread = flagBits&kernelThreadFlag != 0
	return parsed, nil
}

// unescapeComm undoes the two escapes that the kernel writes in names (fs/proc/array.c, proc_task_name).
func unescapeComm(name []byte) []byte {
	if bytes.IndexByte(name, '\\') < 0 {
		return name
	}
	return []byte(strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(string(name)))
}

// parseCommandLine reads /proc/PID/cmdline: arguments that each end in a zero byte, or whatever the program wrote over
// them (setproctitle).
func parseCommandLine(content []byte) (command, commandLine string) {
	content = bytes.TrimRight(content, "\x00")
	first, _, _ := bytes.Cut(content, []byte{0})
	command = clean(first, maxCommandBytes)
	if len(content) > maxCommandLineBytes {
		content = content[:maxCommandLineBytes]
	}
	return command, clean(bytes.ReplaceAll(content, []byte{0}, []byte{' '}), maxCommandLineBytes)
}

// parseExecutable cleans the target of /proc/PID/exe. The kernel marks a file that was removed or replaced since; the
// program keeps its name, or an upgrade would rename the services that still run.
func parseExecutable(target []byte) string {
	return clean(bytes.TrimSuffix(target, []byte(" (deleted)")), maxPathBytes)
}

// environment is what the OpenTelemetry variables of a process say.
type environment struct {
	service    Service
	attributes []Attribute
}

func (e environment) empty() bool { return e.service == Service{} && len(e.attributes) == 0 }

// parseEnviron reads /proc/PID/environ. As for getenv, the first of two equal names counts.
func parseEnviron(content []byte) environment {
	const namePrefix, attributesPrefix = "OTEL_SERVICE_NAME=", "OTEL_RESOURCE_ATTRIBUTES="
	var serviceName, attributes []byte
	for len(content) > 0 {
		var variable []byte
		variable, content, _ = bytes.Cut(content, []byte{0})
		if value, found := bytes.CutPrefix(variable, []byte(namePrefix)); found && serviceName == nil {
			serviceName = value
		} else if value, found := bytes.CutPrefix(variable, []byte(attributesPrefix)); found && attributes == nil {
			attributes = value
		}
	}
	parsed := parseResourceAttributes(string(attributes))
	if name := clean(bytes.TrimSpace(serviceName), maxAttributeValueBytes); name != "" {
		parsed.service.Name = name
	}
	return parsed
}

// parseResourceAttributes reads OTEL_RESOURCE_ATTRIBUTES as the SDKs do: "key=value,key=value" with percent-encoded
// values. A pair without "=" is left out, a value that cannot be decoded is kept as it stands, the last of two equal
// keys counts.
func parseResourceAttributes(text string) environment {
	var parsed environment
	for text != "" && len(parsed.attributes) < maxAttributes {
		var pair string
		pair, text, _ = strings.Cut(text, ",")
		key, value, found := strings.Cut(pair, "=")
		key = clean([]byte(strings.TrimSpace(key)), maxAttributeKeyBytes)
		if !found || key == "" {
			continue
		}
		value = strings.TrimSpace(value)
		if decoded, err := url.PathUnescape(value); err == nil {
			value = decoded
		}
		value = clean([]byte(value), maxAttributeValueBytes)
		switch key {
		case string(semconv.ServiceNameKey):
			parsed.service.Name = value
		case string(semconv.ServiceNamespaceKey):
			parsed.service.Namespace = value
		case string(semconv.ServiceVersionKey):
			parsed.service.Version = value
		case string(semconv.ServiceInstanceIDKey):
			parsed.service.InstanceID = value
		default:
			same := func(attribute Attribute) bool { return attribute.Key == key }
			if at := slices.IndexFunc(parsed.attributes, same); at >= 0 {
				parsed.attributes[at].Value = value
			} else {
				parsed.attributes = append(parsed.attributes, Attribute{Key: key, Value: value})
			}
		}
	}
	slices.SortFunc(parsed.attributes, func(a, b Attribute) int { return strings.Compare(a.Key, b.Key) })
	return parsed
}

// parseBootTimeOffset reads /proc/self/timens_offsets: what the kernel adds to the start times that this process sees,
// in nanoseconds.
func parseBootTimeOffset(content []byte) (int64, error) {
	for line := range bytes.Lines(content) {
		fields := strings.Fields(string(line))
		if len(fields) != 3 || (fields[0] != "boottime" && fields[0] != "7") {
			continue
		}
		seconds, err := strconv.ParseInt(fields[1], 10, 33)
		if err != nil {
			return 0, fmt.Errorf("seconds of the boottime offset: %w", err)
		}
		nanoseconds, err := strconv.ParseInt(fields[2], 10, 33)
		if err != nil {
			return 0, fmt.Errorf("nanoseconds of the boottime offset: %w", err)
		}
		return seconds*1e9 + nanoseconds, nil
	}
	return 0, nil
}

// clean makes a string of outside bytes: valid UTF-8, at most limit bytes of the source, cut between characters.
func clean(source []byte, limit int) string {
	if len(source) > limit {
		source = source[:limit]
		// A character that the cut went through is left out, unless the bytes were no text anyway.
		for back := 1; back < utf8.UTFMax && back <= len(source); back++ {
			if start := len(source) - back; utf8.RuneStart(source[start]) {
				if !utf8.FullRune(source[start:]) {
					source = source[:start]
				}
				break
			}
		}
	}
	return strings.ToValidUTF8(string(source), "\uFFFD")
}
