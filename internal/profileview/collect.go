package profileview

import (
	"cmp"
	"encoding/hex"
	"errors"
	"math"
	"path"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Filter says what to take from the messages. Its zero value takes everything.
type Filter struct {
	// Processes are patterns as of path.Match for a process's executable name or path, its service's name, its pid or its
	// container's id, of which the first 12 digits suffice. A process is taken if one of them matches.
	Processes []string

	// Types are names of value types, such as cpu or cpu/nanoseconds.
	Types []string

	// Span is a trace id or a span id in hexadecimal digits.
	Span string
}

// Why samples are left out, as it is told to people.
const (
	reasonStack     = "the stack refers to an entry that its message does not have"
	reasonType      = "the profile's type refers to a string that its message does not have"
	reasonAttribute = "an attribute refers to an entry that its message does not have"
	reasonLink      = "the span refers to an entry that its message does not have"
	reasonShape     = "as many values as timestamps are needed, or only one of the two, and one value"
	reasonNegative  = "the value is negative"
)

// errDangling is an index that leads nowhere.
var errDangling = errors.New("index out of range")

// Add sums a message up into the profile.
func (p *Profile) Add(profiles pprofile.Profiles, filter Filter) {
	message := newMessage(p, profiles.Dictionary())
	p.Messages++
	for _, ofResource := range profiles.ResourceProfiles().All() {
		attributes := ofResource.Resource().Attributes()
		if !filter.takesProcess(attributes) {
			continue
		}
		resource := message.resource(attributes)
		for _, ofScope := range ofResource.ScopeProfiles().All() {
			for _, profile := range ofScope.Profiles().All() {
				message.add(profile, resource, filter)
			}
		}
	}
}

// message resolves what one message refers to. The tables remember what was resolved: dictionary entries are shared by many
// samples.
type message struct {
	profile    *Profile
	dictionary pprofile.ProfilesDictionary

	strings, attributes, functions, mappings, locations, stacks, links remembered
}

// remembered maps indices of a message to places in the profile: 0 is not yet known, and below 0 is broken.
type remembered []int32

func newMessage(profile *Profile, dictionary pprofile.ProfilesDictionary) *message {
	return &message{
		profile:    profile,
		dictionary: dictionary,
		strings:    make(remembered, dictionary.StringTable().Len()),
		attributes: make(remembered, dictionary.AttributeTable().Len()),
		functions:  make(remembered, dictionary.FunctionTable().Len()),
		mappings:   make(remembered, dictionary.MappingTable().Len()),
		locations:  make(remembered, dictionary.LocationTable().Len()),
		stacks:     make(remembered, dictionary.StackTable().Len()),
		links:      make(remembered, dictionary.LinkTable().Len()),
	}
}

// get returns the place for an index. An index that is out of range, or whose entry refers to one that is, is an error.
func (r remembered) get(index int32, resolve func(int) (int32, error)) (int32, error) {
	if index < 0 || int(index) >= len(r) {
		return 0, errDangling
	}
	if r[index] == 0 {
		place, err := resolve(int(index))
		if err != nil {
			r[index] = -1
		} else {
			r[index] = place + 1
		}
	}
	if r[index] < 0 {
		return 0, errDangling
	}
	return r[index] - 1, nil
}

func (m *message) add(from pprofile.Profile, resource int32, filter Filter) {
	samples := from.Samples()
	told, err := m.valueType(from.SampleType())
	if err != nil {
		m.skip(reasonType, samples.Len())
		return
	}
	profile := m.profile
	taken := profile.typesOf(told, m.period(from), filter)
	if len(taken) == 0 || samples.Len() == 0 {
		return
	}
	if start := from.Time(); start != 0 {
		end := start
		if duration := from.DurationNano(); duration <= math.MaxInt64-uint64(min(start, math.MaxInt64)) {
			end += pcommon.Timestamp(duration)
		}
		profile.covers(start.AsTime(), end.AsTime())
	}
	for _, sample := range samples.All() {
		m.addSample(sample, resource, taken, filter)
	}
}

// takenType is a type of values with the factor that makes them from those of the file.
type takenType struct {
	place  int32
	factor int64
}

// typesOf returns what a profile's values are summed up as. Where samples are counted and each stands for a period of
// processor time, that time is another type: it adds up rightly over profiles of different frequencies.
func (p *Profile) typesOf(told ValueType, every period, filter Filter) []takenType {
	var taken []takenType
	if filter.takesType(told) {
		taken = append(taken, takenType{place: p.types.add(told), factor: 1})
	}
	if told.Name == "samples" && every.valueType.Unit == "nanoseconds" && every.value > 0 {
		derived := ValueType{Name: every.valueType.Name, Unit: every.valueType.Unit, Derived: true}
		if filter.takesType(derived) {
			taken = append(taken, takenType{place: p.types.add(derived), factor: every.value})
		}
	}
	for _, valueType := range taken {
		p.sampledEvery(valueType.place, every)
	}
	return taken
}

func (m *message) addSample(sample pprofile.Sample, resource int32, taken []takenType, filter Filter) {
	values, times := sample.Values(), sample.TimestampsUnixNano()
	value := int64(times.Len()) // each timestamp is one event where there are no values
	if values.Len() > 0 {
		if values.Len() != times.Len() && (times.Len() != 0 || values.Len() != 1) {
			m.skip(reasonShape, 1)
			return
		}
		value = 0
		for _, one := range values.All() {
			if one < 0 {
				m.skip(reasonNegative, 1)
				return
			}
			value = addSaturating(value, one)
		}
	}
	link, err := m.link(sample.LinkIndex())
	if err != nil {
		m.skip(reasonLink, 1)
		return
	}
	if !filter.takesSpan(m.profile.links.entries[link]) {
		return
	}
	stack, err := m.stacks.get(sample.StackIndex(), m.stack)
	if err != nil {
		m.skip(reasonStack, 1)
		return
	}
	labels, err := m.labels(sample.AttributeIndices())
	if err != nil {
		m.skip(reasonAttribute, 1)
		return
	}
	m.profile.Samples++
	key := sampleKey{stack: stack, resource: resource, labels: labels, link: link}
	for _, valueType := range taken {
		key.valueType = valueType.place
		m.profile.add(key, multiplySaturating(value, valueType.factor))
	}
}

func (m *message) skip(reason string, samples int) {
	if samples > 0 {
		m.profile.Skipped[reason] += int64(samples)
	}
}

func (m *message) string(index int32) (int32, error) {
	return m.strings.get(index, func(index int) (int32, error) {
		// pprof and the page are both UTF-8; the file may hold anything.
		return m.profile.strings.add(strings.ToValidUTF8(m.dictionary.StringTable().At(index), "\uFFFD")), nil
	})
}

func (m *message) valueType(from pprofile.ValueType) (ValueType, error) {
	name, nameErr := m.string(from.TypeStrindex())
	unit, unitErr := m.string(from.UnitStrindex())
	if m.dictionary.StringTable().Len() == 0 && from.TypeStrindex() == 0 && from.UnitStrindex() == 0 {
		return ValueType{}, nil
	}
	return ValueType{Name: m.profile.text(name), Unit: m.profile.text(unit)}, errors.Join(nameErr, unitErr)
}

// period is how often samples were taken. One that cannot be read is as good as none: nothing else depends on it.
func (m *message) period(from pprofile.Profile) period {
	valueType, err := m.valueType(from.PeriodType())
	if err != nil || from.Period() <= 0 || valueType == (ValueType{}) {
		return period{}
	}
	return period{valueType: valueType, value: from.Period()}
}

func (m *message) stack(index int) (int32, error) {
	indices := m.dictionary.StackTable().At(index).LocationIndices()
	packed := make([]byte, 0, 2*indices.Len())
	for _, index := range indices.All() {
		place, err := m.locations.get(index, m.location)
		if err != nil {
			return 0, err
		}
		packed = pack(packed, uint64(place))
	}
	return m.profile.stacks.add(string(packed)), nil
}

func (m *message) location(index int) (int32, error) {
	from := m.dictionary.LocationTable().At(index)
	resolved := location{address: from.Address()}
	var err error
	// The zero value at index 0 may be missing from the tables of others: it is the same as none.
	if from.MappingIndex() != 0 {
		if resolved.mapping, err = m.mappings.get(from.MappingIndex(), m.mapping); err != nil {
			return 0, err
		}
	}
	kind, err := m.attribute(from.AttributeIndices(), string(semconv.ProfileFrameTypeKey))
	if err != nil {
		return 0, err
	}
	resolved.kind = m.profile.strings.add(kind)
	packed := make([]byte, 0, 4*from.Lines().Len())
	for _, line := range from.Lines().All() {
		if line.FunctionIndex() == 0 {
			continue // a line of an unknown function says nothing
		}
		function, err := m.functions.get(line.FunctionIndex(), m.function)
		if err != nil {
			return 0, err
		}
		packed = pack(packed, uint64(function))
		packed = pack(packed, uint64(max(line.Line(), 0)))
		packed = pack(packed, uint64(max(line.Column(), 0)))
	}
	resolved.lines = string(packed)
	return m.profile.locations.add(resolved), nil
}

func (m *message) mapping(index int) (int32, error) {
	from := m.dictionary.MappingTable().At(index)
	file, err := m.string(from.FilenameStrindex())
	if err != nil {
		return 0, err
	}
	buildID := ""
	for _, key := range []string{
		string(semconv.ProcessExecutableBuildIDGNUKey), // what pprof and debuginfod look files up by
		string(semconv.ProcessExecutableBuildIDGoKey),
		string(semconv.ProcessExecutableBuildIDHtlhashKey),
	} {
		if buildID, err = m.attribute(from.AttributeIndices(), key); err != nil {
			return 0, err
		}
		if buildID != "" {
			break
		}
	}
	return m.profile.mappings.add(mapping{
		file: file, buildID: m.profile.strings.add(buildID),
		start: from.MemoryStart(), limit: from.MemoryLimit(), offset: from.FileOffset(),
	}), nil
}

func (m *message) function(index int) (int32, error) {
	from := m.dictionary.FunctionTable().At(index)
	name, nameErr := m.string(from.NameStrindex())
	systemName, systemNameErr := m.string(from.SystemNameStrindex())
	file, fileErr := m.string(from.FilenameStrindex())
	return m.profile.functions.add(function{
		name: name, systemName: systemName, file: file, startLine: max(from.StartLine(), 0),
	}), errors.Join(nameErr, systemNameErr, fileErr)
}

func (m *message) link(index int32) (int32, error) {
	if index == 0 {
		return 0, nil
	}
	return m.links.get(index, func(index int) (int32, error) {
		from := m.dictionary.LinkTable().At(index)
		var link Link
		if trace := from.TraceID(); !trace.IsEmpty() {
			link.TraceID = hex.EncodeToString(trace[:])
		}
		if span := from.SpanID(); !span.IsEmpty() {
			link.SpanID = hex.EncodeToString(span[:])
		}
		return m.profile.links.add(link), nil
	})
}

// attribute is the value of the first attribute with that key, or empty.
func (m *message) attribute(indices pcommon.Int32Slice, key string) (string, error) {
	for _, index := range indices.All() {
		found, err := m.attributeAt(index)
		if err != nil {
			return "", err
		}
		if found.Key == key {
			return found.Value, nil
		}
	}
	return "", nil
}

func (m *message) attributeAt(index int32) (Label, error) {
	place, err := m.attributes.get(index, func(index int) (int32, error) {
		attribute := m.dictionary.AttributeTable().At(index)
		key, err := m.string(attribute.KeyStrindex())
		if err != nil {
			return 0, err
		}
		return m.profile.attributes.add(newLabel(m.profile.text(key), attribute.Value())), nil
	})
	if err != nil {
		return Label{}, err
	}
	return m.profile.attributes.entries[place], nil
}

func (m *message) labels(indices pcommon.Int32Slice) (int32, error) {
	if indices.Len() == 0 {
		return 0, nil
	}
	labels := make([]Label, 0, indices.Len())
	for _, index := range indices.All() {
		label, err := m.attributeAt(index)
		if err != nil {
			return 0, err
		}
		labels = append(labels, label)
	}
	return m.packLabels(labels), nil
}

func (m *message) resource(attributes pcommon.Map) int32 {
	labels := make([]Label, 0, attributes.Len())
	for key, value := range attributes.All() {
		labels = append(labels, newLabel(strings.ToValidUTF8(key, "\uFFFD"), value))
	}
	return m.packLabels(labels)
}

// packLabels makes equal sets equal, whatever their order was. What has no key or no value says nothing.
func (m *message) packLabels(labels []Label) int32 {
	labels = slices.DeleteFunc(labels, func(label Label) bool { return label.Key == "" || label.Value == "" })
	slices.SortStableFunc(labels, func(left, right Label) int { return cmp.Compare(left.Key, right.Key) })
	labels = slices.CompactFunc(labels, func(left, right Label) bool { return left.Key == right.Key })
	packed := make([]byte, 0, 4*len(labels))
	for _, label := range labels {
		packed = pack(packed, uint64(m.profile.strings.add(label.Key)))
		value := uint64(m.profile.strings.add(label.Value)) << 1
		if label.Integer {
			value |= 1
		}
		packed = pack(packed, value)
	}
	return m.profile.labels.add(string(packed))
}

func newLabel(key string, value pcommon.Value) Label {
	return Label{
		Key: key, Value: strings.ToValidUTF8(value.AsString(), "\uFFFD"), Integer: value.Type() == pcommon.ValueTypeInt,
	}
}

func (f Filter) takesType(valueType ValueType) bool {
	return len(f.Types) == 0 || slices.Contains(f.Types, valueType.Name) || slices.Contains(f.Types, valueType.String())
}

func (f Filter) takesSpan(link Link) bool {
	return f.Span == "" || strings.EqualFold(f.Span, link.SpanID) || strings.EqualFold(f.Span, link.TraceID)
}

// containerIDDigits are enough to name a container, as for the receiver's own selection.
const containerIDDigits = 12

func (f Filter) takesProcess(attributes pcommon.Map) bool {
	if len(f.Processes) == 0 {
		return true
	}
	for _, pattern := range f.Processes {
		for _, key := range []string{
			string(semconv.ProcessExecutableNameKey), string(semconv.ProcessExecutablePathKey), string(semconv.ServiceNameKey),
			string(semconv.ProcessPIDKey), string(semconv.ContainerIDKey),
		} {
			value, exists := attributes.Get(key)
			if !exists {
				continue
			}
			text := value.AsString()
			if matched, err := path.Match(pattern, text); err == nil && matched {
				return true
			}
			if key == string(semconv.ContainerIDKey) && len(pattern) >= containerIDDigits && strings.HasPrefix(text, pattern) {
				return true
			}
		}
	}
	return false
}

// Validate says what is wrong with a filter.
func (f Filter) Validate() error {
	var problems []error
	for _, pattern := range f.Processes {
		if _, err := path.Match(pattern, ""); err != nil {
			problems = append(problems, errors.New("the process pattern "+pattern+" is not closed: check its brackets"))
		}
	}
	if f.Span != "" {
		if _, err := hex.DecodeString(f.Span); err != nil || len(f.Span) != 16 && len(f.Span) != 32 {
			problems = append(
				problems,
				errors.New("the span "+f.Span+" must be a span id of 16 or a trace id of 32 hexadecimal digits"),
			)
		}
	}
	return errors.Join(problems...)
}
