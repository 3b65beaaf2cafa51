package profilecheck

import (
	"fmt"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// sampleTypes are those that the conventions know, each with the type of its period, none where there is no period.
func sampleTypes() map[string]string {
	return map[string]string{
		"samples/count":       "cpu/nanoseconds",
		"off_cpu/nanoseconds": "",
		"alloc_objects/count": "space/bytes",
		"alloc_space/bytes":   "space/bytes",
		"inuse_objects/count": "space/bytes",
		"inuse_space/bytes":   "space/bytes",
	}
}

func (c *checker) resources(profiles pprofile.Profiles) {
	seen := make(map[string]int)
	for i, resource := range profiles.ResourceProfiles().All() {
		where := fmt.Sprintf("resource_profiles[%d]", i)
		attributes := resource.Resource().Attributes()
		key := pcommon.NewValueMap()
		attributes.CopyTo(key.Map())
		if before, ok := seen[key.AsString()]; ok { // as JSON, with the keys in order
			c.report(Resource, where, "its resource is equal to that of %d", before)
		} else {
			seen[key.AsString()] = i
		}
		c.attributeMap(attributes, where+".resource")
		if resource.ScopeProfiles().Len() == 0 {
			c.report(Resource, where, "it has no scope_profiles")
		}
		described := make(map[description]string)
		for j, scope := range resource.ScopeProfiles().All() {
			where := fmt.Sprintf("%s.scope_profiles[%d]", where, j)
			c.attributeMap(scope.Scope().Attributes(), where+".scope")
			if scope.Profiles().Len() == 0 {
				c.report(Resource, where, "it has no profiles")
			}
			for k, profile := range scope.Profiles().All() {
				where := fmt.Sprintf("%s.profiles[%d]", where, k)
				what := c.profile(profile, where)
				if before, ok := described[what]; ok {
					c.report(SampleType, where, "it has type, shape and time of %s", before)
				} else {
					described[what] = where
				}
			}
		}
	}
}

// attributeMap checks attributes that are not in the dictionary until they are on the wire.
func (c *checker) attributeMap(from pcommon.Map, where string) {
	keys := make(map[string]bool, from.Len())
	for key, value := range from.All() {
		at := fmt.Sprintf("%s.attributes[%q]", where, key)
		c.encoding(key, at)
		if key == "" {
			c.report(Attribute, at, "it has no key")
		}
		if keys[key] {
			c.report(Attribute, at, "there is another one")
		}
		keys[key] = true
		c.useText(key)
		c.useValue(value, at)
	}
}

func (c *checker) useText(text string) {
	if index, ok := c.texts[text]; ok {
		c.used[stringTable][index] = true
	}
}

func (c *checker) useValue(value pcommon.Value, where string) {
	switch value.Type() {
	case pcommon.ValueTypeStr:
		c.encoding(value.Str(), where)
		c.useText(value.Str())
	case pcommon.ValueTypeSlice:
		for _, element := range value.Slice().All() {
			c.useValue(element, where)
		}
	case pcommon.ValueTypeMap:
		for key, element := range value.Map().All() {
			c.useText(key)
			c.useValue(element, where)
		}
	default:
	}
}

// shape is what a sample has.
type shape int

const (
	noShape shape = iota
	oneValue
	timesOnly
	timedValues
)

// description is what one profile of a resource differs from another by.
type description struct {
	sampleType, periodType string
	period                 int64
	time                   pcommon.Timestamp
	duration               uint64
	shape                  shape
}

func (c *checker) profile(profile pprofile.Profile, where string) description {
	what := description{
		sampleType: c.valueType(profile.SampleType(), where+".sample_type"),
		periodType: c.valueType(profile.PeriodType(), where+".period_type"),
		period:     profile.Period(),
		time:       profile.Time(),
		duration:   profile.DurationNano(),
	}
	period, ok := sampleTypes()[what.sampleType]
	if !ok {
		c.report(SampleType, where, "no convention knows %q", what.sampleType)
	} else {
		c.period(what, period, where)
	}
	if what.time == 0 || what.duration == 0 || what.time > math.MaxInt64 || what.duration > math.MaxInt64-uint64(what.time) {
		c.report(Time, where, "its time is %d, its duration %d", what.time, what.duration)
	}
	c.attributeSet(profile.AttributeIndices(), where, onProfile)
	c.use(attributeTable, profile.AttributeIndices().AsRaw()...)
	if profile.Samples().Len() == 0 {
		c.report(Resource, where, "it has no samples")
	}

	seen := make(map[string]int, profile.Samples().Len())
	for i, sample := range profile.Samples().All() {
		where := fmt.Sprintf("%s.samples[%d]", where, i)
		found := c.sample(sample, profile, where)
		switch {
		case found == noShape: // reported
		case what.shape == noShape:
			what.shape = found
		case what.shape != found:
			c.report(Shape, where, "it has not got the shape of the first sample")
		}
		identity := fmt.Sprint(sample.StackIndex(), set(sample.AttributeIndices().AsRaw()), sample.LinkIndex())
		if before, ok := seen[identity]; ok {
			c.report(Identity, where, "it has stack, attributes and link of sample %d", before)
		} else {
			seen[identity] = i
		}
	}
	return what
}

// valueType gives type and unit, empty for none.
func (c *checker) valueType(from pprofile.ValueType, where string) string {
	c.valid(stringTable, from.TypeStrindex(), where+".type_strindex")
	c.valid(stringTable, from.UnitStrindex(), where+".unit_strindex")
	c.use(stringTable, from.TypeStrindex(), from.UnitStrindex())
	kind, unit := c.text(from.TypeStrindex()), c.text(from.UnitStrindex())
	if kind == "" && unit == "" {
		return ""
	}
	return kind + "/" + unit
}

func (c *checker) period(what description, wanted, where string) {
	switch {
	case what.period < 0:
		c.report(Period, where, "it is %d", what.period)
	case what.period == 0 && what.sampleType == "samples/count":
		c.report(Period, where, "samples of a CPU need one")
	case what.period == 0 && what.periodType != "":
		c.report(Period, where, "there is none, but a type of it, %s", what.periodType)
	case what.period > 0 && what.periodType != wanted:
		c.report(Period, where, "its type is %q, not %q", what.periodType, wanted)
	}
}

// sample checks one sample, follows what it refers to, and gives its shape.
func (c *checker) sample(sample pprofile.Sample, profile pprofile.Profile, where string) shape {
	if c.valid(stackTable, sample.StackIndex(), where+".stack_index") && sample.StackIndex() == 0 {
		c.report(Stack, where, "it has no stack")
	}
	c.valid(linkTable, sample.LinkIndex(), where+".link_index")
	c.attributeSet(sample.AttributeIndices(), where, onSample)
	c.use(stackTable, sample.StackIndex())
	c.use(linkTable, sample.LinkIndex())
	c.use(attributeTable, sample.AttributeIndices().AsRaw()...)

	for i, value := range sample.Values().All() {
		if value <= 0 {
			c.report(Value, fmt.Sprintf("%s.values[%d]", where, i), "it is %d", value)
		}
	}
	start := uint64(profile.Time())
	for i, timestamp := range sample.TimestampsUnixNano().All() {
		if timestamp < start || timestamp-start >= profile.DurationNano() {
			c.report(Time, fmt.Sprintf("%s.timestamps_unix_nano[%d]", where, i), "%d is not in the %d ns from %d",
				timestamp, profile.DurationNano(), start)
		}
	}
	switch values, times := sample.Values().Len(), sample.TimestampsUnixNano().Len(); {
	case values == 1 && times == 0:
		return oneValue
	case values == 0 && times > 0:
		return timesOnly
	case values == times && times > 0:
		return timedValues
	default:
		c.report(Shape, where, "it has %d values and %d timestamps", values, times)
		return noShape
	}
}
