//go:build linux

package cpu

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.uber.org/zap"

	"github.com/ebpfreceiver/ebpfreceiver/internal/signal"
	"github.com/ebpfreceiver/ebpfreceiver/internal/signal/profile"
	"github.com/ebpfreceiver/ebpfreceiver/internal/symbol"
	"github.com/ebpfreceiver/ebpfreceiver/internal/timeline"
)

// batch is what was counted in an interval.
type batch struct {
	began, ended time.Time
	samples      []sample
	retired      []*symbol.Image // that no stack of later batches has
	gone         []symbol.Process
}

// sample is a stack that threads were seen with.
type sample struct {
	stack         *stack
	kind          bpfSampleKind
	thread, cpu   uint32
	comm          string
	count, timeNs uint64

	// Where the process serves requests: who ran, and when.
	by     timeline.Unit
	parent uint64 // the goroutine that has started it
	atNs   uint64 // bpf_ktime_get_ns; 0: it was counted with others
}

// maxMessageBytes is how large a message gets: receivers of OTLP take 4 MiB by default.
const maxMessageBytes = 3 << 20

// maxLocations bounds the addresses whose names are remembered.
const maxLocations = 1 << 16

// timelineDelay is how long after a sample it is known what was served then: the HTTP probe reads its ring now and then.
const timelineDelay = 250 * time.Millisecond

// keptBatches is for how many batches an image is kept that no process has any more: stacks may still have it.
const keptBatches = keptFlushes + 1

// resolver names the functions of stacks and makes profiles, in a goroutine of its own: to read a file for its symbols may
// take a while.
type resolver struct {
	config  Config
	symbols *symbol.Symbolizer
	kernel  *symbol.KernelSymbols
	logger  *zap.Logger
	work    chan *batch
	busy    atomic.Bool
	handoff *signal.Handoff[pprofile.Profiles]
	done    sync.WaitGroup

	// Owned by the goroutine.
	builder   *profile.Builder[*stack]
	locations map[site]profile.Location
	mappings  map[mappingKey]*profile.Mapping
	modules   map[string]*profile.Mapping
	frames    []symbol.Frame
	batches   uint64
	retired   [keptBatches][]*symbol.Image

	named, unnamed          atomic.Uint64 // frames
	refused                 atomic.Uint64 // samples
	kernelBytes             atomic.Int64
	linked, uncertain, late atomic.Uint64 // samples
}

// site is an address of a file; of the kernel, if there is no image.
type site struct {
	image   *symbol.Image
	address uint64
}

type mappingKey struct {
	image *symbol.Image
	start uint64
}

func newResolver(config Config, symbols *symbol.Symbolizer, logger *zap.Logger) *resolver {
	r := &resolver{
		config: config, symbols: symbols, logger: logger, work: make(chan *batch, 1),
		kernel:    symbol.NewKernelSymbols(filepath.Join(config.ProcFS, "kallsyms"), time.Now),
		locations: map[site]profile.Location{}, mappings: map[mappingKey]*profile.Mapping{},
		modules: map[string]*profile.Mapping{},
	}
	r.builder = profile.New[*stack](r, config.Scope)
	return r
}

func (r *resolver) start(handoff *signal.Handoff[pprofile.Profiles]) {
	r.handoff = handoff
	r.done.Go(func() {
		for next := range r.work {
			if r.config.Timeline != nil {
				time.Sleep(time.Until(next.ended.Add(timelineDelay)))
			}
			r.resolve(next, r.handoff.Offer)
			r.busy.Store(false)
		}
	})
}

// idle says that take does not block.
func (r *resolver) idle() bool { return !r.busy.Load() && r.handoff.Idle() }

// take lets a profile be made of a batch.
func (r *resolver) take(next *batch) {
	r.busy.Store(true)
	r.work <- next
}

// finish ends what start began, with the last batch. It waits for the consumer until ctx ends.
func (r *resolver) finish(ctx context.Context, last *batch) {
	close(r.work)
	r.done.Wait()
	r.resolve(last, func(profiles pprofile.Profiles) { r.handoff.Insist(ctx, profiles) })
	for _, images := range r.retired {
		closeAll(images)
	}
}

func closeAll(images []*symbol.Image) {
	for _, image := range images {
		image.Close()
	}
}

// resolve makes messages of a batch: one, unless it is too large for those who receive it.
func (r *resolver) resolve(next *batch, handOver func(pprofile.Profiles)) {
	r.batches++
	for i := range next.samples {
		if err := r.add(next, &next.samples[i]); err != nil {
			r.refused.Add(1)
			r.logger.Debug("A sample cannot be told", zap.Error(err))
		}
		if r.builder.Size() > maxMessageBytes {
			handOver(r.builder.Build())
		}
	}
	if r.builder.Len() > 0 {
		handOver(r.builder.Build())
	}
	for _, process := range next.gone {
		r.symbols.ForgetProcess(process)
	}
	closeAll(r.retired[0])
	copy(r.retired[:], r.retired[1:])
	r.retired[keptBatches-1] = next.retired
	if len(r.locations) > maxLocations {
		clear(r.locations)
		clear(r.mappings)
	}
	r.kernelBytes.Store(r.kernel.RetainedBytes())
}

func (r *resolver) add(next *batch, s *sample) error {
	description := profile.Description{
		Type: profile.CPU, Period: int64(time.Second) / int64(max(r.config.Frequency, 1)),
		Start: next.began, Duration: next.ended.Sub(next.began),
	}
	attributes := profile.Attributes{
		ProcessID: s.stack.key.PID, ThreadID: s.thread, ThreadName: s.comm, Incomplete: endReasons[s.stack.end],
	}
	if r.config.CPUs {
		attributes.CPU = profile.OnCPU(s.cpu)
	}
	value := s.count
	if s.kind != bpfSampleKindSAMPLE_ON_CPU {
		description.Type, description.Period = profile.OffCPU, 0
		value = s.timeNs
		attributes.OffCPUReason = profile.Wait
		if s.kind == bpfSampleKindSAMPLE_PREEMPTED {
			attributes.OffCPUReason = profile.Preempted
		}
	}
	into, err := r.builder.Profile(r.builder.Resource(s.stack.workload), description)
	if err != nil {
		return err
	}
	return r.builder.Add(into, profile.Sample[*stack]{
		Stack: s.stack, Attributes: attributes, Value: int64(value), Link: r.link(s),
	})
}

// link finds the span of the request that a sample was taken in.
func (r *resolver) link(s *sample) profile.Link {
	if s.atNs == 0 {
		return profile.Link{}
	}
	span, answer := r.config.Timeline.At(s.by, false, s.atNs)
	if answer == timeline.Nothing && s.parent != 0 {
		parent := s.by
		parent.Number = s.parent
		span, answer = r.config.Timeline.At(parent, true, s.atNs)
	}
	switch answer {
	case timeline.Found:
		r.linked.Add(1)
	case timeline.Uncertain:
		r.uncertain.Add(1)
	case timeline.TooLate:
		r.late.Add(1)
	}
	return profile.Link{TraceID: span.Trace, SpanID: span.Span}
}

// AppendLocations names what the addresses of a stack are.
func (r *resolver) AppendLocations(locations []profile.Location, of *stack) []profile.Location {
	if of.resolved == nil || of.retryAt != 0 && r.batches >= of.retryAt {
		r.locate(of)
	}
	return append(locations, of.resolved...)
}

// maxRetryDelay is for how many batches at most, as a power of two, a name is not looked for again.
const maxRetryDelay = 6

// locate names what the addresses of a stack are.
func (r *resolver) locate(of *stack) {
	missing := false
	located := make([]profile.Location, 0, len(of.kernel)+len(of.user))
	for i, address := range of.kernel {
		if i > 0 {
			address-- // in the call, not behind it
		}
		found := r.remembered(site{nil, address}, func() profile.Location { return r.inKernel(address) })
		missing = missing || len(found.Lines) == 0
		located = append(located, found)
	}
	for i := range of.user {
		at := &of.user[i]
		switch {
		case at.image != nil:
			located = append(located, r.remembered(site{at.image, at.address}, func() profile.Location { return r.inFile(at) }))
		default:
			found := r.inProcess(of, at)
			missing = missing || at.dynamic && len(found.Lines) == 0
			located = append(located, found)
		}
	}
	of.resolved, of.retryAt = located, 0
	if missing {
		of.retryAt = r.batches + 1<<min(of.tries, maxRetryDelay)
		of.tries++
	}
}

// remembered finds what is at an address, once: what a file has does not change. Of the kernel, modules and BPF programs
// come and go, and what has no name may get one.
func (r *resolver) remembered(at site, find func() profile.Location) profile.Location {
	found, ok := r.locations[at]
	if !ok {
		found = find()
		if at.image != nil || found.Mapping == &kernelMapping && len(found.Lines) > 0 {
			r.locations[at] = found
		}
	}
	return found
}

// kernelMapping is where the kernel is, by the name that perf gives it. Its addresses are not told: they differ from boot to
// boot, and are nobody's business.
var kernelMapping = profile.Mapping{File: "[kernel.kallsyms]"}

func (r *resolver) inKernel(address uint64) profile.Location {
	found := profile.Location{Mapping: &kernelMapping, FrameType: string(symbol.Kernel)}
	frame, err := r.kernel.Lookup(address)
	if err != nil {
		r.unnamed.Add(1)
		return found
	}
	if frame.Module != "" {
		found.Mapping = r.module(frame.Module)
	}
	r.name(&found, frame)
	return found
}

// module is the mapping of a module of the kernel.
func (r *resolver) module(name string) *profile.Mapping {
	known := r.modules[name]
	if known == nil {
		known = &profile.Mapping{File: "[" + name + "]"}
		r.modules[name] = known
	}
	return known
}

// name adds what functions an address is in.
func (r *resolver) name(found *profile.Location, frames ...symbol.Frame) {
	r.named.Add(1)
	for _, frame := range frames {
		found.Lines = append(found.Lines, profile.Line{
			Function: frame.Function, SystemName: frame.Linkage, File: frame.File,
			StartLine: frame.StartLine, Line: frame.Line, Column: frame.Column,
		})
		found.FrameType = string(frame.Type)
	}
}

func (r *resolver) inFile(at *frame) profile.Location {
	found := profile.Location{Mapping: r.mapping(at), Address: at.address, FrameType: string(symbol.Native)}
	frames, err := at.image.Lookup(at.address, r.frames[:0])
	r.frames = frames[:0]
	if err != nil {
		r.unnamed.Add(1)
		return found
	}
	r.name(&found, frames...)
	return found
}

// mapping is the part of a file that an address is in.
func (r *resolver) mapping(at *frame) *profile.Mapping {
	identity := at.image.Identity()
	var segment symbol.Segment // none: where the file is mapped is not known
	for _, one := range identity.Segments {
		if one.Executable && at.address >= one.Address && at.address-one.Address < one.FileSize {
			segment = one
			break
		}
	}
	key := mappingKey{at.image, segment.Address}
	known := r.mappings[key]
	if known == nil {
		known = &profile.Mapping{
			Start: segment.Address, Limit: segment.Address + segment.FileSize, Offset: segment.Offset, File: at.path,
			BuildIDGNU: identity.GNU, BuildIDGo: identity.Go, BuildIDHtlhash: identity.HTLHash,
		}
		r.mappings[key] = known
	}
	return known
}

// inProcess names what is in no file: code that the process has made itself, or what is not known.
func (r *resolver) inProcess(of *stack, at *frame) profile.Location {
	found := profile.Location{Address: at.address}
	if at.path != "" {
		found.Mapping = &profile.Mapping{File: at.path}
	}
	if at.dynamic {
		process := symbolProcess(r.config.ProcFS, of.key)
		if frames, err := r.symbols.LookupProcess(process, at.address, r.frames[:0]); err == nil {
			r.frames = frames[:0]
			r.name(&found, frames...)
			return found
		}
	}
	r.unnamed.Add(1)
	return found
}
