//go:build linux

package tls

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

// Uprobes attaches programs to sites, with uprobe_multi links: those are allowed with CAP_BPF and CAP_PERFMON, where uprobes
// of perf_event_open(2) need CAP_SYS_ADMIN.
//
// A file is named by an open descriptor: the inode that was looked into is the one that the kernel attaches to, though its
// path may name another one by now.
type Uprobes struct {
	// Program is what runs at a site; nil: nothing does. Its attach type is ebpf.AttachTraceUprobeMulti.
	Program func(target Target, site site.Site) *ebpf.Program
	// Cookie is what bpf_get_attach_cookie gives to the program at a site; nil: nothing is given.
	Cookie func(target Target, site site.Site) uint64
}

var _ Attacher = (*Uprobes)(nil)

// together are sites that one link attaches to, one after the other.
type together struct {
	program *ebpf.Program
	returns bool
	sites   []site.Site
	options link.UprobeMultiOptions
}

// Attach places the uprobes of a file: all, or none.
func (u *Uprobes) Attach(target Target) (io.Closer, error) {
	executable, err := link.OpenExecutable(target.Path)
	if err != nil {
		return nil, fmt.Errorf("open %s for uprobes: %w", target.Name, err)
	}
	attached := &attachedSites{}
	for _, run := range u.runs(target) {
		attach := executable.UprobeMulti
		if run.returns {
			attach = executable.UretprobeMulti
		}
		uprobes, err := attach(nil, run.program, &run.options)
		if err != nil {
			return nil, errors.Join(
				fmt.Errorf("attach uprobes to %s at %v: %w", target.Name, run.sites, err), attached.Close())
		}
		attached.links = append(attached.links, uprobes)
	}
	return attached, nil
}

// runs has the sites of a file in the order in which they are to be attached to.
func (u *Uprobes) runs(target Target) []*together {
	var (
		runs []*together
		last *together
	)
	for _, place := range inOrder(target.Sites) {
		program := u.Program(target, place)
		if program == nil {
			continue
		}
		if last == nil || last.program != program || last.returns != place.Return {
			last = &together{program: program, returns: place.Return}
			runs = append(runs, last)
		}
		var cookie uint64
		if u.Cookie != nil {
			cookie = u.Cookie(target, place)
		}
		last.sites = append(last.sites, place)
		last.options.Addresses = append(last.options.Addresses, place.Offset)
		last.options.Cookies = append(last.options.Cookies, cookie)
	}
	return runs
}

// inOrder has the sites at which calls end first: no call is seen to begin whose end is not seen.
func inOrder(sites []site.Site) []site.Site {
	var ordered []site.Site
	for _, ends := range []bool{true, false} {
		for _, place := range sites {
			if ends == (place.Event == site.ReadReturn || place.Event == site.WriteReturn) {
				ordered = append(ordered, place)
			}
		}
	}
	return ordered
}

type attachedSites struct {
	links []link.Link
}

// Close takes away what lets calls begin first.
func (a *attachedSites) Close() error {
	var errs []error
	for index := len(a.links) - 1; index >= 0; index-- {
		errs = append(errs, a.links[index].Close())
	}
	return errors.Join(errs...)
}
