package profile

import (
	"errors"
	"fmt"
	"math"
	"time"

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
	// ErrOutsideMapping says that an address is not within the range of its mapping, or that the range ends before it
	// starts.
	ErrOutsideMapping = errors.New("an address is not in its mapping")
	// ErrValue says that the value is not more than 0, not 1 where the profile has only times, or makes a sum that no int64
	// holds.
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
	limits        limits
	message       uint32 // which one is being built, from 1

	dictionary  dictionary
	resources   []resourceRow
	profiles    []profileRow
	samples     []sampleRow
	occurrences []occurrence

	resourcesSeen memory[string, int32] // by ResourceKey
	profilesSeen  memory[profileKey, int32]
	stacksSeen    memory[Key, int32] // negative: refused, see refusals
	samplesSeen   memory[sampleKey, int32]

	texts     texts
	refusals  []error    // of stacks: number i is that of -1-i
	locations []Location // scratch
}

// chain is a list of rows of another table: each row says which one is next. -1 is the end.
type chain struct{ first, last, length int32 }

func newChain() chain { return chain{first: -1, last: -1} }

// resourceRow is a resource. Its profiles are those that have samples.
type resourceRow struct {
	identity Identity // nil where it is not known
	profiles chain
}

type profileRow struct {
	profileKey
	samples chain
	next    int32 // of the resource
}

// profileKey is what one profile of a message differs from another by.
type profileKey struct {
	resource   int32
	kind       Type
	shape      Shape
	period     int64
	start      int64 // ns since 1970
	durationNs int64
}

type sampleRow struct {
	sampleKey
	value       int64 // the sum, for Totals
	occurrences chain
	next        int32 // of the profile
}

// sampleKey is a sample's identity.
type sampleKey struct {
	profile    int32
	stack      int32
	attributes int32 // a set
	link       int32
}

// occurrence is a time and what was there then.
type occurrence struct {
	timeNs int64
	value  int64
	next   int32 // of the sample
}

// limits are what a message may have, before it is full. A stack that begins below them is taken in as a whole.
type limits struct {
	samples     int
	occurrences int
	rows        int // of each table of the dictionary
	stacks      int // locations of all stacks together
}

// New makes a builder of an empty message. stacks tells what the stacks of samples consist of; describeScope writes the
// instrumentation scope, and may be nil.
func New[Key comparable](stacks Stacks[Key], describeScope func(pcommon.InstrumentationScope)) *Builder[Key] {
	return &Builder[Key]{
		stacks:        stacks,
		describeScope: describeScope,
		limits:        limits{samples: 1 << 20, occurrences: 1 << 24, rows: 1 << 22, stacks: 1 << 26},
		message:       1,
		dictionary:    newDictionary(),
	}
}

// Resource gives the message's resource with that identity, for Profile. Asked again, it gives the same. An identity of nil
// is a resource that nothing is known about. The builder keeps the identity until Build.
func (b *Builder[Key]) Resource(identity Identity) Resource {
	key := ""
	if identity != nil {
		key = identity.ResourceKey()
	}
	index, ok := b.resourcesSeen.get(key)
	if !ok {
		index = int32(len(b.resources))
		b.resources = append(b.resources, resourceRow{identity: identity, profiles: newChain()})
		b.resourcesSeen.put(key, index)
	}
	return Resource{index: index, message: b.message}
}

// Profile gives the profile of a resource with that description, for Add. Asked again, it gives the same. It is in the
// message only when a sample is added. Errors wrap ErrDescription or ErrStale.
func (b *Builder[Key]) Profile(resource Resource, description Description) (Profile, error) {
	if resource.message != b.message {
		return Profile{}, fmt.Errorf("describe a profile of a resource: %w", ErrStale)
	}
	if err := description.validate(); err != nil {
		return Profile{}, err
	}
	key := profileKey{
		resource:   resource.index,
		kind:       description.Type,
		shape:      description.Shape,
		period:     description.Period,
		start:      description.Start.UnixNano(),
		durationNs: int64(description.Duration),
	}
	index, ok := b.profilesSeen.get(key)
	if !ok {
		index = int32(len(b.profiles))
		b.profiles = append(b.profiles, profileRow{profileKey: key, samples: newChain(), next: -1})
		b.profilesSeen.put(key, index)
	}
	return Profile{index: index, message: b.message}, nil
}

// Add adds a sample to a profile: to the one with the same stack, attributes and link, where there is one. After an error
// the message is as it was before.
func (b *Builder[Key]) Add(profile Profile, sample Sample[Key]) error {
	if profile.message != b.message {
		return fmt.Errorf("add a sample to a profile: %w", ErrStale)
	}
	if err := b.profiles[profile.index].validate(sample.Value, sample.Time, sample.Link); err != nil {
		return err
	}
	row, ok := b.find(profile, &sample)
	if !ok {
		var err error
		if row, err = b.addSample(profile, &sample); err != nil {
			return err
		}
	}
	return b.count(row, sample.Value, sample.Time)
}

// validate says why a sample cannot be in a profile.
func (p *profileRow) validate(value int64, at time.Time, link Link) error {
	if value <= 0 || p.shape == Timestamps && value != 1 {
		return fmt.Errorf("%w: %d", ErrValue, value)
	}
	if p.shape != Totals {
		if start := time.Unix(0, p.start); at.Before(start) || !at.Before(start.Add(time.Duration(p.durationNs))) {
			return fmt.Errorf("%w: %s is not in the %s from %s", ErrTime, at, time.Duration(p.durationNs), start)
		}
	}
	if link.TraceID.IsEmpty() != link.SpanID.IsEmpty() {
		return fmt.Errorf("%w: trace %q, span %q", ErrLink, link.TraceID, link.SpanID)
	}
	return nil
}

// find gives the row of the sample that equals this one, if the message has it.
func (b *Builder[Key]) find(profile Profile, sample *Sample[Key]) (row int32, ok bool) {
	key := sampleKey{profile: profile.index}
	if key.stack, ok = b.stacksSeen.get(sample.Stack); !ok {
		return 0, false
	}
	if key.attributes, ok = b.dictionary.findAttributes(&sample.Attributes); !ok {
		return 0, false
	}
	if key.link, ok = b.dictionary.links.find(sample.Link); !ok {
		return 0, false
	}
	return b.samplesSeen.get(key)
}

// addSample gives the row of a sample that the message may not have. It has no value yet: what it refers to is in the
// dictionary only when it is sure to get one.
func (b *Builder[Key]) addSample(profile Profile, sample *Sample[Key]) (int32, error) {
	if b.full() {
		return 0, ErrFull
	}
	stack, err := b.stack(sample.Stack)
	if err != nil {
		return 0, err
	}
	key := sampleKey{
		profile:    profile.index,
		stack:      stack,
		attributes: b.dictionary.addAttributes(&sample.Attributes),
		link:       b.dictionary.links.add(sample.Link),
	}
	// Two keys of the caller's, or two spellings of a thread's name, may have become one.
	row, ok := b.samplesSeen.get(key)
	if ok {
		return row, nil
	}
	row = int32(len(b.samples))
	b.samples = append(b.samples, sampleRow{sampleKey: key, occurrences: newChain(), next: -1})
	b.samplesSeen.put(key, row)

	of := &b.profiles[profile.index]
	if of.samples.length == 0 {
		profiles := &b.resources[of.resource].profiles
		if previous := profiles.add(profile.index); previous >= 0 {
			b.profiles[previous].next = profile.index
		}
	}
	if previous := of.samples.add(row); previous >= 0 {
		b.samples[previous].next = row
	}
	return row, nil
}

// add appends a row to the chain, and gives the one that it is next of, -1 for none.
func (c *chain) add(row int32) (previous int32) {
	previous = c.last
	if previous < 0 {
		c.first = row
	}
	c.last = row
	c.length++
	return previous
}

// full says that the message takes no new sample.
func (b *Builder[Key]) full() bool {
	d := &b.dictionary
	rows := max(len(d.strings.rows), len(d.functions.rows), len(d.mappings.rows), len(d.locations.rows), len(d.links.rows),
		len(d.attributes.rows), len(d.seenLines))
	return len(b.samples) >= b.limits.samples || len(b.occurrences) >= b.limits.occurrences ||
		rows >= b.limits.rows || len(d.stacks.elements) >= b.limits.stacks
}

// stack gives the index of a stack in the dictionary. Stacks is asked once.
func (b *Builder[Key]) stack(key Key) (int32, error) {
	index, ok := b.stacksSeen.get(key)
	if !ok {
		b.locations = b.stacks.AppendLocations(b.locations[:0], key)
		if err := validate(b.locations); err != nil {
			b.refusals = append(b.refusals, err)
			index = -int32(len(b.refusals))
		} else {
			index = b.dictionary.addStack(b.locations)
		}
		b.stacksSeen.put(key, index)
	}
	if index < 0 {
		return 0, b.refusals[-1-index]
	}
	return index, nil
}

// count adds to what a sample has. For a sample that is new it cannot fail.
func (b *Builder[Key]) count(row int32, value int64, at time.Time) error {
	sample := &b.samples[row]
	if b.profiles[sample.profile].shape == Totals {
		if value > math.MaxInt64-sample.value {
			return fmt.Errorf("%w: %d and %d make too much", ErrValue, sample.value, value)
		}
		sample.value += value
		return nil
	}
	if len(b.occurrences) >= b.limits.occurrences {
		return ErrFull
	}
	index := int32(len(b.occurrences))
	b.occurrences = append(b.occurrences, occurrence{timeNs: at.UnixNano(), value: value, next: -1})
	if previous := sample.occurrences.add(index); previous >= 0 {
		b.occurrences[previous].next = index
	}
	return nil
}

// Len is how many samples the message has, after merging.
func (b *Builder[Key]) Len() int { return len(b.samples) }

// Build gives the message, which is the caller's then, and begins the next one: all Resources and Profiles are stale.
// Without samples the message is empty.
//
// The builder keeps the room that the message needed, for the next one, but nothing that was in it.
func (b *Builder[Key]) Build() pprofile.Profiles {
	profiles := pprofile.NewProfiles()
	if len(b.samples) > 0 {
		b.write(profiles)
	}
	b.message++
	b.dictionary.recycle()
	b.texts = texts{}
	b.resources = recycled(b.resources)
	b.profiles = recycled(b.profiles)
	b.samples = recycled(b.samples)
	b.occurrences = recycled(b.occurrences)
	b.resourcesSeen.recycle()
	b.profilesSeen.recycle()
	b.stacksSeen.recycle()
	b.samplesSeen.recycle()
	b.refusals = recycled(b.refusals)
	b.locations = recycledScratch(b.locations)
	return profiles
}
