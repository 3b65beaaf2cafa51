package profilecheck

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// place is what an attribute is of.
type place int

const (
	onMapping place = iota + 1
	onLocation
	onSample
	onProfile
)

func (p place) String() string {
	return map[place]string{onMapping: "mappings", onLocation: "locations", onSample: "samples", onProfile: "profiles"}[p]
}

// convention is where an attribute belongs and what its value is.
type convention struct {
	place place
	kind  pcommon.ValueType
}

func conventions() map[string]convention {
	return map[string]convention{
		string(semconv.ProcessExecutableBuildIDGNUKey):     {onMapping, pcommon.ValueTypeStr},
		string(semconv.ProcessExecutableBuildIDGoKey):      {onMapping, pcommon.ValueTypeStr},
		string(semconv.ProcessExecutableBuildIDHtlhashKey): {onMapping, pcommon.ValueTypeStr},
		string(semconv.ProfileFrameTypeKey):                {onLocation, pcommon.ValueTypeStr},
		string(semconv.ProcessPIDKey):                      {onSample, pcommon.ValueTypeInt},
		string(semconv.ThreadIDKey):                        {onSample, pcommon.ValueTypeInt},
		string(semconv.ThreadNameKey):                      {onSample, pcommon.ValueTypeStr},
		string(semconv.CPULogicalNumberKey):                {onSample, pcommon.ValueTypeInt},
		"profile.stack.incomplete":                         {onSample, pcommon.ValueTypeStr},
		"profile.off_cpu.reason":                           {onSample, pcommon.ValueTypeStr},
	}
}

// frameTypes are the values of profile.frame.type.
func frameTypes() []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.ProfileFrameTypeDotnet, semconv.ProfileFrameTypeJVM, semconv.ProfileFrameTypeKernel,
		semconv.ProfileFrameTypeNative, semconv.ProfileFrameTypePerl, semconv.ProfileFrameTypePHP,
		semconv.ProfileFrameTypeCpython, semconv.ProfileFrameTypeRuby, semconv.ProfileFrameTypeV8JS,
		semconv.ProfileFrameTypeBeam, semconv.ProfileFrameTypeGo, semconv.ProfileFrameTypeRust,
		semconv.ProfileFrameTypeLuajit,
	}
}

// attribute checks an entry of the attribute table by itself.
func (c *checker) attribute(a pprofile.KeyValueAndUnit, where string) {
	key, value := c.text(a.KeyStrindex()), a.Value()
	if key == "" {
		c.report(Attribute, where, "it has no key")
	}
	if value.Type() == pcommon.ValueTypeEmpty || value.Type() == pcommon.ValueTypeStr && value.Str() == "" {
		c.report(Attribute, where, "%s has no value", key)
		return
	}
	if value.Type() == pcommon.ValueTypeStr {
		c.encoding(value.Str(), where)
	}
	if known, ok := c.conventions[key]; ok && value.Type() != known.kind {
		c.report(Attribute, where, "%s is a %s, not a %s", key, value.Type(), known.kind)
		return
	}
	if value.Type() == pcommon.ValueTypeInt && value.Int() < 0 {
		c.report(Attribute, where, "%s is %d", key, value.Int())
	}
	if key != string(semconv.ProfileFrameTypeKey) {
		return
	}
	for _, known := range frameTypes() {
		if value.Str() == known.Value.AsString() {
			return
		}
	}
	c.report(Attribute, where, "no convention knows the frame type %q", value.Str())
}

// attributeSet checks the attributes that something has.
func (c *checker) attributeSet(indices pcommon.Int32Slice, where string, of place) {
	keys := make(map[string]bool, indices.Len())
	for i, index := range indices.All() {
		at := fmt.Sprintf("%s.attribute_indices[%d]", where, i)
		if !c.valid(attributeTable, index, at) {
			continue
		}
		if index == 0 {
			c.report(Attribute, at, "it is the zero value")
			continue
		}
		key := c.text(c.from.AttributeTable().At(int(index)).KeyStrindex())
		if keys[key] {
			c.report(Attribute, at, "there is another %s", key)
		}
		keys[key] = true
		if convention, ok := c.conventions[key]; ok && convention.place != of {
			c.report(Attribute, at, "%s is for %s, not for %s", key, convention.place, of)
		}
	}
}
