package profile

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Identity is what profiles are of, such as a *workload.Workload: the same resource that spans and metrics of it have.
type Identity interface {
	// PutResource writes the attributes of the resource.
	PutResource(attributes pcommon.Map)
	// ResourceKey is equal for two identities exactly when PutResource writes the same for both.
	ResourceKey() string
}

// Stacks tells what stacks consist of. Key is the caller's name for a stack: hashes of addresses together with the process
// that gives the addresses their meaning.
type Stacks[Key comparable] interface {
	// AppendLocations appends the locations of a stack to locations, the leaf first, and returns them. A stack that is not
	// known has none.
	//
	// It is called once for each key and message, when the first sample with it is added. The builder keeps neither the slice
	// nor the lines in it.
	AppendLocations(locations []Location, key Key) []Location
}

// Location is one address of a stack with all that is known about it.
type Location struct {
	// Mapping that the address is in, nil where none is known. What it points to must not change until Build.
	Mapping *Mapping
	// Address is a virtual address of the mapping's ELF file, so it does not depend on where the process has loaded it. The
	// caller has subtracted 1 from return addresses. Where the mapping has a range, it is within it. 0 where it is not known.
	Address uint64
	// Lines are the functions at the address: where calls were inlined, the innermost first, the one that has the code last.
	// Empty where there are no symbols. A line whose function has neither name nor file is left out.
	Lines []Line
	// FrameType is a value of the attribute profile.frame.type of the semantic conventions, empty where it is not known.
	FrameType string
}

// Line is a function at an address, and the line of source there. Empty and 0 mean not known; so do negative numbers.
type Line struct {
	// Function is its name as people write it.
	Function string
	// SystemName is its name as the linker knows it, where that is different.
	SystemName string
	// File is the source file that the function is in.
	File string
	// StartLine is the line that the function begins at, from 1.
	StartLine int
	// Line in File, from 1.
	Line int
	// Column in Line, from 1.
	Column int
}

// Mapping is an executable range of a file, or of memory that has no file.
type Mapping struct {
	// Start and Limit are the range that is mapped, as virtual addresses of the ELF file: [Start, Limit). So one file is one
	// mapping, in all processes. Both 0 where the range is not known.
	Start, Limit uint64
	// Offset is where Start is in the file, in bytes.
	Offset uint64
	// File is its path, or a name in brackets for what has none, as in /proc/PID/maps.
	File string
	// BuildIDGNU is the note of the linker, BuildIDGo that of Go's linker, BuildIDHtlhash the hash of the file's head, tail
	// and length: the attributes process.executable.build_id.*. Empty where not known.
	BuildIDGNU, BuildIDGo, BuildIDHtlhash string
}

// Attributes are what a sample is told apart by, beside its stack and link. The caller leaves out what it does not want to
// tell apart: samples with equal Attributes are merged. The zero value of each field leaves it out.
type Attributes struct {
	ProcessID  uint32 // process.pid, of which a resource may have many
	ThreadID   uint32 // thread.id
	ThreadName string // thread.name
	CPU        CPUNumber
	// Incomplete is why the side of the root of the stack is missing, as a short word in snake_case.
	Incomplete string
	// OffCPUReason is why a thread did not run; only on samples of type OffCPU.
	OffCPUReason OffCPUReason
}

// CPUNumber is a logical CPU, or none. The zero value is none.
type CPUNumber struct{ plusOne uint32 }

// OnCPU is the logical CPU of that number (cpu.logical_number).
func OnCPU(number uint32) CPUNumber { return CPUNumber{plusOne: number + 1} }

// OffCPUReason is a value of the attribute profile.off_cpu.reason.
type OffCPUReason string

// The reasons.
const (
	Wait      OffCPUReason = "wait"      // it waited for something
	Preempted OffCPUReason = "preempted" // it could have run, and another thread did
)

// Link is the span that a sample belongs to. The zero value is none; one id without the other is refused.
type Link struct {
	TraceID pcommon.TraceID
	SpanID  pcommon.SpanID
}

// Sample is one occurrence, or several equal ones.
type Sample[Key comparable] struct {
	Stack      Key
	Attributes Attributes
	Link       Link
	// Value is in the unit of the profile's type, and more than 0. In a profile of shape Timestamps it is 1.
	Value int64
	// Time is when it occurred: within the profile's time for the shapes with times, not looked at for Totals.
	Time time.Time
}
