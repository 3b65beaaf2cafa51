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

// Uprobes attaches programs, one uprobe for each site.
//
// A file is named by an open descriptor: the inode that was looked into is the one that the kernel attaches to, though its
// path may name another one by now (uprobes on a path: perf_event_open(2), 4.17).
type Uprobes struct {
	// Program is what runs at a site; nil: nothing does.
	Program func(target Target, site site.Site) *ebpf.Program
	// Cookie is what bpf_get_attach_cookie (5.15) gives to the program at a site; nil: the kernel has none.
	Cookie func(target Target, site site.Site) uint64
}

var _ Attacher = (*Uprobes)(nil)

// Attach places the uprobes of a file: all, or none.
func (u *Uprobes) Attach(target Target) (io.Closer, error) {
	executable, err := link.OpenExecutable(target.Path)
	if err != nil {
		return nil, fmt.Errorf("open %s for uprobes: %w", target.Name, err)
	}
	attached := &attachedSites{}
	for _, place := range inOrder(target.Sites) {
		program := u.Program(target, place)
		if program == nil {
			continue
		}
		options := &link.UprobeOptions{Address: place.Offset}
		if u.Cookie != nil {
			options.Cookie = u.Cookie(target, place)
		}
		attach := executable.Uprobe
		if place.Return {
			attach = executable.Uretprobe
		}
		uprobe, err := attach(place.Function, program, options)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach a uprobe to %s at %s: %w", target.Name, place, err), attached.Close())
		}
		attached.links = append(attached.links, uprobe)
	}
	return attached, nil
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
