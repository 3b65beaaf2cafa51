package profile

import (
	"errors"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// Why a sample is refused. Errors of Add wrap one of them.
var (
	// ErrStale says that a Resource or Profile is of an earlier message, or of none.
	ErrStale = errors.New("the handle is not of this message")
	// ErrNoStack says that Stacks does not know the stack.
	ErrNoStack = errors.New("the stack has no locations")
	// ErrEmptyLocation says that a location of the stack tells nothing: no mapping, no address, no line, no frame type.
	ErrEmptyLocation = errors.New("a location is empty")
	// ErrOutsideMapping says that an address is not within the range of its mapping, or that the range ends before it starts.
	ErrOutsideMapping = errors.New("an address is not in its mapping")
	// ErrValue says that the value is not more than 0, not 1 where the profile has only times, or makes a sum that no int64 holds.
	ErrValue = errors.New("the value cannot be counted")
	// ErrTime says that the sample is not within the profile's time.
	ErrTime = errors.New("the sample is not within the time of its profile")
	// ErrLink says that a link has a trace id without a span id, or the reverse.
	ErrLink = errors.New("the link is not complete")
	// ErrFull says that the message has as much as it can hold: Build, and add the sample again.
	ErrFull = errors.New("the message is full")
)

// Resource is a resource of the message that is being built.
type Resource struct {
	index   int32
	message uint32
}

// Profile is a profile of the message that is being built.
type Profile struct {
	index   int32
	message uint32
}

// Builder makes one message after the other. It is not safe for concurrent use.
type Builder[Key comparable] struct {
	stacks        Stacks[Key]
	describeScope func(pcommon.InstrumentationScope)
}

// New makes a builder of an empty message. stacks tells what the stacks of samples consist of; describeScope writes the
// instrumentation scope, and may be nil.
func New[Key comparable](stacks Stacks[Key], describeScope func(pcommon.InstrumentationScope)) *Builder[Key] {
	return &Builder[Key]{stacks: stacks, describeScope: describeScope}
}

// Resource gives the message's resource with that identity, for Profile. Asked again, it gives the same. The builder keeps
// the identity until Build.
func (b *Builder[Key]) Resource(identity Identity) Resource { return Resource{} }

// Profile gives the profile of a resource with that description, for Add. Asked again, it gives the same. It is in the
// message only when a sample is added. Errors wrap ErrDescription or ErrStale.
func (b *Builder[Key]) Profile(resource Resource, description Description) (Profile, error) {
	return Profile{}, nil
}

// Add adds a sample to a profile: to the one with the same stack, attributes and link, where there is one. After an error
// the message is as it was before.
func (b *Builder[Key]) Add(profile Profile, sample Sample[Key]) error { return nil }

// Len is how many samples the message has, after merging.
func (b *Builder[Key]) Len() int { return 0 }

// Build gives the message, which is the caller's then, and begins the next one: all Resources and Profiles are stale. Without
// samples the message is empty.
func (b *Builder[Key]) Build() pprofile.Profiles { return pprofile.Profiles{} }
