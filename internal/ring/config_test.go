//go:build linux

package ring

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

func TestRoundBytes(t *testing.T) {
	page := os.Getpagesize()
	for _, test := range []struct{ bytes, want int }{
		{-1, 0},
		{0, 0},
		{1, page},
		{page, page},
		{page + 1, 2 * page},
		{3 * page, 4 * page},
		{1 << 20, 1 << 20},
		{1<<20 + 1, 2 << 20},
		{maximumBytes, maximumBytes},
	} {
		if got := roundBytes(test.bytes); got != test.want {
			t.Errorf("roundBytes(%d) = %d, want %d", test.bytes, got, test.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		fields []string // that the message has to name
	}{
		"zero value":          {Config{}, nil},
		"all set":             {Config{Bytes: 1 << 20, WakeupBytes: 1 << 10, PollInterval: time.Second, Kind: PerfBuffer}, nil},
		"wake-up after round": {Config{Bytes: 1<<20 - 1, WakeupBytes: 1<<20 - 1}, nil},
		"negative size":       {Config{Bytes: -1}, []string{"Bytes is -1"}},
		"huge size":           {Config{Bytes: maximumBytes + 1}, []string{"Bytes is"}},
		"negative wake-up":    {Config{WakeupBytes: -1}, []string{"WakeupBytes is -1"}},
		"wake-up never":       {Config{Bytes: 1 << 20, WakeupBytes: 1 << 20}, []string{"WakeupBytes is 1048576"}},
		"negative poll":       {Config{PollInterval: -1}, []string{"PollInterval is -1ns"}},
		"poll too short":      {Config{PollInterval: time.Microsecond}, []string{"PollInterval is 1µs"}},
		"unknown kind":        {Config{Kind: 7}, []string{"Kind is 7"}},
		"all wrong": {Config{Bytes: -1, WakeupBytes: -1, PollInterval: -1, Kind: -1},
			[]string{"Bytes", "WakeupBytes", "PollInterval", "Kind"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.config.Validate()
			if (err == nil) != (len(test.fields) == 0) {
				t.Fatalf("Validate() = %v", err)
			}
			for _, field := range test.fields {
				if !strings.Contains(err.Error(), field) {
					t.Errorf("Validate() = %v, does not say %q", err, field)
				}
			}
		})
	}
}

// object is a BPF object with what ring.h declares.
func object() *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{mapName: {Name: mapName, Type: ebpf.RingBuf, MaxEntries: 4 << 20}},
		Variables: map[string]*ebpf.VariableSpec{
			isPerfBufferName: {Name: isPerfBufferName, Value: make([]byte, 1)},
			wakeupBytesName:  {Name: wakeupBytesName, Value: make([]byte, 8)},
		},
	}
}

func TestConfigure(t *testing.T) {
	for name, test := range map[string]struct {
		config     Config
		kind       ebpf.MapType
		maxEntries uint32
		perf       bool
		wakeup     uint64
	}{
		"declared size":      {Config{Kind: RingBuffer}, ebpf.RingBuf, 4 << 20, false, 1 << 20},
		"rounded up":         {Config{Kind: RingBuffer, Bytes: 3 << 20}, ebpf.RingBuf, 4 << 20, false, 1 << 20},
		"small":              {Config{Kind: RingBuffer, Bytes: 1 << 18}, ebpf.RingBuf, 1 << 18, false, 1 << 16},
		"own threshold":      {Config{Kind: RingBuffer, Bytes: 1 << 18, WakeupBytes: 77}, ebpf.RingBuf, 1 << 18, false, 77},
		"perf buffer":        {Config{Kind: PerfBuffer}, ebpf.PerfEventArray, 0, true, 1 << 20},
		"perf buffer, small": {Config{Kind: PerfBuffer, Bytes: 1 << 18}, ebpf.PerfEventArray, 0, true, 1 << 16},
	} {
		t.Run(name, func(t *testing.T) {
			spec := object()
			if err := Configure(spec, test.config); err != nil {
				t.Fatal(err)
			}
			events := spec.Maps[mapName]
			if events.Type != test.kind || events.MaxEntries != test.maxEntries {
				t.Errorf("the map is a %v of %d, want %v of %d", events.Type, events.MaxEntries, test.kind, test.maxEntries)
			}
			var perf bool
			var wakeup uint64
			if err := errors.Join(spec.Variables[isPerfBufferName].Get(&perf), spec.Variables[wakeupBytesName].Get(&wakeup)); err != nil {
				t.Fatal(err)
			}
			if perf != test.perf || wakeup != test.wakeup {
				t.Errorf("perf buffer %v, wake-up at %d; want %v, %d", perf, wakeup, test.perf, test.wakeup)
			}
		})
	}
}

func TestConfigureRefuses(t *testing.T) {
	withoutMap, withoutConstant := object(), object()
	delete(withoutMap.Maps, mapName)
	delete(withoutConstant.Variables, wakeupBytesName)
	for name, test := range map[string]struct {
		spec   *ebpf.CollectionSpec
		config Config
		says   string
	}{
		"a wrong configuration":         {object(), Config{Bytes: -1}, "Bytes is -1"},
		"a threshold of a default ring": {object(), Config{Kind: RingBuffer, WakeupBytes: 4 << 20}, "WakeupBytes is 4194304"},
		"an object without the map":     {withoutMap, Config{Kind: RingBuffer}, `no map "events"`},
		"an object without a constant":  {withoutConstant, Config{Kind: RingBuffer}, `no constant "ring_wakeup_bytes"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := Configure(test.spec, test.config)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Configure() = %v, want it to say %q", err, test.says)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	fault := errors.New("fault")
	for name, test := range map[string]struct {
		answer error
		kind   Kind
		err    error
	}{
		"a kernel with ring buffers":    {nil, RingBuffer, nil},
		"a kernel without":              {&kernel.UnsupportedError{Feature: "BPF ring buffer"}, PerfBuffer, nil},
		"a kernel that does not answer": {fault, Auto, fault},
	} {
		t.Run(name, func(t *testing.T) {
			kind, err := choose(test.answer)
			if kind != test.kind || !errors.Is(err, test.err) {
				t.Errorf("choose() = %v, %v; want %v, %v", kind, err, test.kind, test.err)
			}
		})
	}
}
