//go:build linux && (amd64 || arm64)

package http

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// goProcesses are the programs of Go that the kernel side knows: go_processes of bpf/include/http/goroutine.h. For one
// goroutine at a time.
type goProcesses struct {
	entries *ebpf.Map
	added   *ebpf.Variable // go_processes_added
	count   uint32
}

// Put adds a process. What the kernel side remembers of it, and of others, is looked up anew.
func (p *goProcesses) Put(pid uint32, process *bpfGoProcess) error {
	if err := p.entries.Put(pid, process); err != nil {
		return err
	}
	p.count++
	if err := p.added.Set(p.count); err != nil {
		return fmt.Errorf("tell of a change of the map: %w", err)
	}
	return nil
}

// Delete takes a process off.
func (p *goProcesses) Delete(pid uint32) error { return p.entries.Delete(pid) }
