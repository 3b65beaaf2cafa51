//go:build linux

package kernel

import (
	"errors"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// HasTracepoint says whether a program can be attached to a tracepoint by its BTF (5.5). Where there are no kernel types, it
// says yes: nothing can be loaded then, and Load says why.
func (k *Kernel) HasTracepoint(name string) bool {
	if k.types == nil {
		return true
	}
	_, err := k.types.AnyTypesByName("btf_trace_" + name)
	return err == nil
}

// AttachTracing attaches programs to the tracepoints that they were loaded for, in their order: all, or none. A program is
// nil where it was left out because the kernel does not have its tracepoint.
func AttachTracing(capability string, programs ...*ebpf.Program) (*Attachment, error) {
	return Climb(capability, Rung{
		Name: "tp_btf",
		Attach: func() (io.Closer, error) {
			var attached links
			for _, program := range programs {
				if program == nil {
					return nil, errors.Join(errors.New("the kernel does not have the tracepoint"), attached.Close())
				}
				one, err := link.AttachTracing(link.TracingOptions{Program: program})
				if err != nil {
					return nil, errors.Join(err, attached.Close())
				}
				attached = append(attached, one)
			}
			return attached, nil
		},
	})
}

// links are closed together.
type links []link.Link

func (l links) Close() error {
	var errs []error
	for _, one := range l {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}
