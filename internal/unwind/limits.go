//go:build linux

package unwind

import (
	"errors"
	"fmt"
)

// What is read of a file, and kept, at most. Whoever may write a file that is executed may write anything into it.
const (
	// maxHeaderBytes is what headers and names of sections take. The most that was seen is 0.1 MB.
	maxHeaderBytes = 4 << 20
	// maxFrameBytes is the size of a section of call frame information. Chromium, statically linked, has 10 MB.
	maxFrameBytes = 128 << 20
	// maxUnpackedBytes is what a compressed section may become; it is in memory as a whole.
	maxUnpackedBytes = 32 << 20
	// maxRecordBytes is the size of a CIE or FDE. That of the longest function of LLVM has 20 KB.
	maxRecordBytes = 1 << 20
	// maxCIEs are those remembered of a section. Linkers merge them in .eh_frame; in .debug_frame each unit has its own.
	maxCIEs = 1 << 14
	// maxCommonBytes is what is read of CIEs all in all, with what has to be read again because they are far from their FDEs.
	// Linkers write few of them, or each in front of its FDEs.
	maxCommonBytes = 256 << 20
	// maxFDEs and maxRows are those of a file: three times those of Chromium.
	maxFDEs = 2 << 20
	maxRows = 6 << 20
	// maxTerminators are records of length zero in a row. Linkers leave one for each object file that brings one.
	maxTerminators = 256
	// maxRememberedStates is how deep DW_CFA_remember_state nests. Compilers do not nest it.
	maxRememberedStates = 32
	// maxNoteBytes is the size of a segment of notes.
	maxNoteBytes = 64 << 10
	// maxBuildIDBytes is the length of a build id: SHA-1 has 20 bytes, that of Go 83.
	maxBuildIDBytes = 256
	// maxImageBytes is the size of the vDSO. It has 8 KB.
	maxImageBytes = 256 << 10
	// maxSignalReturns is how many functions of the vDSO may look like the one that signal handlers return to.
	maxSignalReturns = 4
	// maxSegments are those of a file that are executable.
	maxSegments = 64
	// windowBytes is how much of a section is in memory while it is read.
	windowBytes = 128 << 10
	// maxMapsBytes is the size of /proc/PID/maps; browsers and databases come to one million.
	maxMapsBytes = 8 << 20
	// maxMappings are the executable ones of a process.
	maxMappings = 16 << 10
	// maxPadding is how long a gap between two functions may be to be taken for what aligns the second one to 16 bytes:
	// nothing executes there, and without a row of its own most of these gaps cost nothing.
	maxPadding = 15
)

// Reason is why there is no table, or not all of it.
type Reason uint8

// The reasons.
const (
	ReasonUnreadable   Reason = iota // an error of the file system
	ReasonGone                       // the process or its mapping is no more
	ReasonDenied                     // we may not read it
	ReasonReplaced                   // the file at the mapping's path is not the one that is mapped
	ReasonNoFile                     // what is mapped is no regular file
	ReasonNotELF                     // not an ELF program or library
	ReasonArchitecture               // of another architecture, or 32-bit
	ReasonMalformed                  // it contradicts itself
	ReasonTooLarge                   // beyond one of the limits
	ReasonBudget                     // no memory is left of what the tables may take
	ReasonBusy                       // too many files wait to be read
	ReasonClosed                     // the cache was closed
	Reasons                          // how many there are
)

// String is the reason as an attribute of a metric.
func (r Reason) String() string {
	names := [Reasons]string{
		"unreadable", "gone", "denied", "replaced", "no_file", "not_elf", "architecture", "malformed", "too_large", "budget",
		"busy", "closed",
	}
	if r < Reasons {
		return names[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// Failure is an error of this package with its reason.
type Failure struct {
	Reason Reason
	Err    error
}

func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns what the failure is about.
func (f *Failure) Unwrap() error { return f.Err }

func failure(reason Reason, format string, arguments ...any) error {
	return &Failure{Reason: reason, Err: fmt.Errorf(format, arguments...)}
}

// ReasonOf is the reason of an error.
func ReasonOf(err error) Reason {
	var found *Failure
	if errors.As(err, &found) {
		return found.Reason
	}
	return ReasonUnreadable
}
