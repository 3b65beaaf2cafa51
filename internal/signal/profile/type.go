package profile

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Type is what the values of a profile's samples count.
type Type uint8

// The types, each with type and unit of its samples and of its period.
const (
	// CPU counts samples that hit a running thread, one every so many nanoseconds of CPU time: samples/count, cpu/nanoseconds.
	CPU Type = iota + 1
	// OffCPU is the time that threads did not run for: off_cpu/nanoseconds. It has no period.
	OffCPU
	// AllocObjects counts objects that were allocated: alloc_objects/count, space/bytes.
	AllocObjects
	// AllocSpace is how many bytes were allocated: alloc_space/bytes, space/bytes.
	AllocSpace
	// InUseObjects counts objects that are in use: inuse_objects/count, space/bytes.
	InUseObjects
	// InUseSpace is how many bytes are in use: inuse_space/bytes, space/bytes.
	InUseSpace
)

// valueType names what numbers mean, as pprofile.ValueType does.
type valueType struct{ name, unit string }

// valueTypes are those of samples and of the period; period is empty where there is none. A type that is not one of the
// constants has neither.
func (t Type) valueTypes() (sample, period valueType) {
	space := valueType{"space", "bytes"}
	switch t {
	case CPU:
		return valueType{"samples", "count"}, valueType{"cpu", "nanoseconds"}
	case OffCPU:
		return valueType{"off_cpu", "nanoseconds"}, valueType{}
	case AllocObjects:
		return valueType{"alloc_objects", "count"}, space
	case AllocSpace:
		return valueType{"alloc_space", "bytes"}, space
	case InUseObjects:
		return valueType{"inuse_objects", "count"}, space
	case InUseSpace:
		return valueType{"inuse_space", "bytes"}, space
	}
	return valueType{}, valueType{}
}

// Shape is what a sample of a profile holds. All samples of one profile have the same.
type Shape uint8

// The shapes.
const (
	// Totals has the sum of the values of equal samples.
	Totals Shape = iota
	// Timestamps has the time of each occurrence; each counts 1.
	Timestamps
	// TimedValues has the time of each occurrence, and the value of each.
	TimedValues
)

// Description is everything about a profile but its samples.
type Description struct {
	Type  Type
	Shape Shape
	// Period is how many events one sample stands for, in the unit of the type's period: nanoseconds (1e9 / Hz) for CPU,
	// the mean of bytes between two samples for memory, 0 where everything is counted and always for OffCPU.
	Period int64
	// Start is the beginning of the time that the samples are of, and Duration its length. They come as a pair from the
	// caller's clock; the end is not part of it.
	Start    time.Time
	Duration time.Duration
}

// ErrDescription says that a profile cannot be described so.
var ErrDescription = errors.New("not a description of a profile")

func (d Description) validate() error {
	sample, period := d.Type.valueTypes()
	switch {
	case sample == valueType{}:
		return fmt.Errorf("%w: type %d is not known", ErrDescription, d.Type)
	case d.Shape > TimedValues:
		return fmt.Errorf("%w: shape %d is not known", ErrDescription, d.Shape)
	case d.Period < 0, d.Period == 0 && d.Type == CPU, d.Period > 0 && period == valueType{}:
		return fmt.Errorf("%w: a period of %d does not fit its type", ErrDescription, d.Period)
	case d.Duration <= 0:
		return fmt.Errorf("%w: it lasts %s", ErrDescription, d.Duration)
	case d.Start.Before(time.Unix(0, 1)) || d.Start.After(time.Unix(0, math.MaxInt64-int64(d.Duration))):
		return fmt.Errorf("%w: it starts at %s, which is no time in nanoseconds since 1970", ErrDescription, d.Start)
	}
	return nil
}
