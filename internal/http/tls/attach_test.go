//go:build linux

package tls

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
)

// counter counts the hits of each event in the kernel.
type counter struct {
	hits     *ebpf.Map
	programs map[site.Event]*ebpf.Program
}

func newCounter(t *testing.T) *counter {
	hits, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 16})
	require.NoError(t, err)
	t.Cleanup(func() { hits.Close() })
	c := &counter{hits: hits, programs: map[site.Event]*ebpf.Program{}}
	for event := site.WriteCall; event <= site.Entry; event++ {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: "GPL", Instructions: asm.Instructions{
				asm.StoreImm(asm.RFP, -4, int64(event), asm.Word),
				asm.LoadMapPtr(asm.R1, hits.FD()),
				asm.Mov.Reg(asm.R2, asm.RFP),
				asm.Add.Imm(asm.R2, -4),
				asm.FnMapLookupElem.Call(),
				asm.JEq.Imm(asm.R0, 0, "end"),
				asm.Mov.Imm(asm.R1, 1),
				asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
				asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
				asm.Return(),
			},
		})
		require.NoError(t, err)
		t.Cleanup(func() { program.Close() })
		c.programs[event] = program
	}
	return c
}

func (c *counter) count(t *testing.T, event site.Event) (count uint64) {
	require.NoError(t, c.hits.Lookup(uint32(event), &count))
	return count
}

// Uprobes at the sites are hit by a real server of Go, once for each request, and by a real client of OpenSSL.
func TestUprobes(t *testing.T) {
	requireArchitecture(t)
	kerneltest.RequireRoot(t)

	const requests = 20
	for _, test := range []struct {
		name   string
		config Config
	}{
		{name: "Go", config: Config{WithoutOpenSSL: true}},
		{name: "OpenSSL", config: Config{WithoutGo: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			counter := newCounter(t)
			test.config.TLS = &Uprobes{
				Program: func(_ Target, place site.Site) *ebpf.Program { return counter.programs[place.Event] },
			}
			finder := NewFinder(test.config, nil)
			defer func() { require.NoError(t, finder.Close()) }()

			// The server waits with its first answer until both processes have been examined.
			examined := make(chan struct{})
			var served atomic.Int64
			server := httptest.NewTLSServer(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
				if served.Add(1) == 1 {
					<-examined
				}
				io.WriteString(response, "hello")
			}))
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			arguments := []string{"-sk", "--http1.1"}
			for range requests + 1 {
				arguments = append(arguments, server.URL)
			}
			curl := exec.CommandContext(ctx, "curl", arguments...)
			require.NoError(t, curl.Start())
			require.Eventually(t, func() bool { return served.Load() > 0 }, 10*time.Second, time.Millisecond)
			observed := examine(t, finder, uint32(curl.Process.Pid), start)
			if test.config.WithoutOpenSSL {
				assert.False(t, observed)
				observed = examine(t, finder, ownPID(), start)
			}
			require.True(t, observed, "%v", lossesOf(finder))
			close(examined)
			require.NoError(t, curl.Wait())

			writes, reads := counter.count(t, site.WriteCall), counter.count(t, site.ReadReturn)
			t.Log("writes", writes, "reads", reads, "read calls", counter.count(t, site.ReadCall))
			if test.config.WithoutOpenSSL {
				// The answer that was held back, and those after it; the requests after it.
				assert.EqualValues(t, requests+1, writes)
				assert.GreaterOrEqual(t, reads, uint64(requests))
				return
			}
			assert.EqualValues(t, requests, writes)
			assert.Equal(t, writes, counter.count(t, site.WriteReturn))
			assert.GreaterOrEqual(t, reads, uint64(requests+1))
			if calls := counter.count(t, site.ReadCall); calls > 0 { // else the ends of reads tell alone
				assert.Equal(t, calls, reads)
			}
		})
	}
}

func TestUprobesAllOrNone(t *testing.T) {
	requireArchitecture(t)
	kerneltest.RequireRoot(t)
	counter := newCounter(t)
	uprobes := &Uprobes{Program: func(_ Target, place site.Site) *ebpf.Program { return counter.programs[place.Event] }}
	_, err := uprobes.Attach(Target{Path: fmt.Sprintf("/proc/%d/exe", ownPID()), Name: "program", Sites: []site.Site{
		{Function: "beyond the file", Event: site.WriteCall, Offset: 1 << 40},
	}})
	require.ErrorContains(t, err, "beyond the file")
}
