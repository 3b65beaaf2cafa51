//go:build linux

package timeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

const (
	contextKeyBytes   = 8 // thread group id in the upper half, thread id in the lower: bpf_get_current_pid_tgid
	contextValueBytes = 16 + 8
	contextEntries    = 1 << 14
)

// Publisher tells other programs which span each thread is at: in a map that is pinned at a place they know, of the layout
// that OpenTelemetry's instrumentation and profiler by eBPF have agreed on (traces_ctx_v1: open-telemetry/
// opentelemetry-specification#4855).
//
// Goroutines are not told of: they move from thread to thread, which nobody follows for this.
type Publisher struct {
	path    string
	entries *ebpf.Map
	made    bool // by us
	told    map[Unit]Span
}

// NewPublisher opens the map that is pinned at a path, or makes it. Whoever comes first makes it.
func NewPublisher(path string) (*Publisher, error) {
	p := &Publisher{path: path, told: map[Unit]Span{}}
	var err error
	p.entries, err = ebpf.LoadPinnedMap(path, nil)
	switch {
	case err == nil:
		if p.entries.Type() != ebpf.LRUHash || p.entries.KeySize() != contextKeyBytes || p.entries.ValueSize() != contextValueBytes {
			found := p.entries.String()
			return nil, errors.Join(fmt.Errorf("open the map of trace contexts at %s: it has another layout: %s", path, found), p.entries.Close())
		}
		return p, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open the map of trace contexts at %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory for the map of trace contexts, in a BPF file system: %w", err)
	}
	p.entries, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "traces_ctx_v1", Type: ebpf.LRUHash, KeySize: contextKeyBytes, ValueSize: contextValueBytes,
		MaxEntries: contextEntries,
	})
	if err != nil {
		return nil, fmt.Errorf("make the map of trace contexts: %w", err)
	}
	if err := p.entries.Pin(path); err != nil {
		return nil, errors.Join(fmt.Errorf("pin the map of trace contexts at %s, which has to be in a BPF file system: %w", path, err), p.entries.Close())
	}
	p.made = true
	return p, nil
}

// Close takes back what was told. A map that we have made is removed; who has it open keeps it.
func (p *Publisher) Close() error {
	var errs []error
	for unit := range p.told {
		errs = append(errs, p.tell(unit, Span{}))
	}
	if p.made {
		if err := p.entries.Unpin(); err != nil {
			errs = append(errs, fmt.Errorf("remove the map of trace contexts at %s: %w", p.path, err))
		}
	}
	return errors.Join(append(errs, p.entries.Close())...)
}

// tell says which span a thread is at; none: it is at none that could be named.
func (p *Publisher) tell(unit Unit, span Span) error {
	if p.told[unit] == span {
		return nil
	}
	key := uint64(unit.PID)<<32 | unit.Number&0xffffffff
	if span.IsZero() {
		delete(p.told, unit)
		if err := p.entries.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // the oldest go by themselves
			return fmt.Errorf("take back the trace context of a thread: %w", err)
		}
		return nil
	}
	var value [contextValueBytes]byte
	copy(value[:16], span.Trace[:])
	copy(value[16:], span.Span[:])
	if err := p.entries.Put(binary.NativeEndian.AppendUint64(nil, key), value[:]); err != nil {
		return fmt.Errorf("publish the trace context of a thread: %w", err)
	}
	p.told[unit] = span
	return nil
}

// PublishBy lets Publish tell others.
func (t *Timeline) PublishBy(publisher *Publisher) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.publisher, t.changed = publisher, map[Unit]struct{}{}
}

// Publish tells others what threads are at now. What began and ended since the last time is not told of.
func (t *Timeline) Publish() error {
	if t == nil {
		return nil
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.publisher == nil {
		return nil
	}
	var errs []error
	for unit := range t.changed {
		span := Span{}
		if now, known := t.open[unit]; known && !now.uncertain && t.mixers[mixer{unit.PID, false}] < now.beginNs {
			span = now.span
		}
		errs = append(errs, t.publisher.tell(unit, span))
	}
	clear(t.changed)
	return errors.Join(errs...)
}

// note remembers that something has changed for a thread. The mutex is held.
func (t *Timeline) note(unit Unit) {
	if t.publisher != nil && !unit.Goroutine {
		t.changed[unit] = struct{}{}
	}
}
