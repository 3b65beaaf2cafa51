//go:build linux

package tls

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

// use is what uprobes are attached for.
type use int

const (
	toTLS use = iota
	toFunctions
	toMux
	uses
)

// identity of a file. Uprobes belong to the inode below an overlay file system; containers of one image have each an overlay
// of their own, but the same inode number and times in it, so the device is left out there. A number is used again when its
// file has gone: size and times tell those apart.
type identity struct {
	device, inode      uint64
	bytes              int64
	modified, changed  unix.Timespec
	onOverlay, missing bool
}

// file is one that was looked into.
type file struct {
	name        string
	tooLarge    bool
	program     *Program        // nil: not read yet
	target      *Target         // likewise
	tried       [uses]bool      // to attach
	attachments [uses]io.Closer // nil: there is nothing to observe
	users       map[uint32]uint64
	unusedFrom  time.Time // zero: it is used
	kept        bool      // whether it is used or not
}

// open opens the very file that is mapped. Where the kernel does not allow that (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN),
// the path has to do.
func open(directory string, mapping mapping) (*os.File, error) {
	opened, err := os.Open(filepath.Join(directory, "map_files", mapping.span))
	if err == nil || mapping.deleted {
		return opened, err
	}
	return os.Open(filepath.Join(directory, "root") + mapping.path)
}

// find returns what is known of a file; nil: it is no file of a program, or there is no room.
func (f *Finder) find(opened *os.File, path string) (*file, error) {
	id, err := identify(opened)
	if err != nil {
		return nil, fmt.Errorf("identify %s: %w", path, err)
	}
	if id.missing {
		return nil, nil
	}
	if known, found := f.files[id]; found {
		return known, nil
	}
	if len(f.files) >= f.config.MaxFiles && !f.makeRoom() {
		f.counts.filesFull.Add(1)
		return nil, nil
	}
	found := &file{name: path, tooLarge: id.bytes > f.config.MaxFileBytes, users: map[uint32]uint64{}}
	if found.tooLarge {
		f.counts.tooLarge.Add(1)
	}
	f.files[id] = found
	return found, nil
}

// attach has uprobes attached to a file, unless that was tried before. It tells whether there are some.
func (f *Finder) attach(found *file, opened *os.File, to use) bool {
	attacher := [uses]Attacher{f.config.TLS, f.config.Functions, f.config.Mux}[to]
	if attacher == nil || found.tooLarge {
		return false
	}
	if found.tried[to] {
		return found.attachments[to] != nil
	}
	found.tried[to] = true
	if found.target == nil {
		f.counts.inspected.Add(1)
		target := f.target(opened, found.name)
		found.target = &target
	}
	target := *found.target
	target.Path, target.Sites = fmt.Sprintf("/proc/self/fd/%d", opened.Fd()), nil
	for _, place := range found.target.Sites {
		leaveOut := f.config.WithoutGo && to == toTLS && target.GoVersion != ""
		if (place.Event == site.Entry || place.Event == site.Matched) == (to != toTLS) && !leaveOut {
			target.Sites = append(target.Sites, place)
		}
	}
	if len(target.Sites) == 0 {
		return false
	}
	attachment, err := attacher.Attach(target)
	if errors.Is(err, site.ErrNone) {
		return false
	}
	if err != nil {
		f.counts.refused[to].Add(1)
		f.logger.Warn("cannot observe a program", zap.String("file", found.name), zap.Error(err))
		return false // It would fail again.
	}
	found.attachments[to] = attachment
	f.counts.attached[to].Add(1)
	f.logger.Debug("observing", zap.String("file", found.name), zap.Stringers("sites", target.Sites))
	return true
}

// detach takes all uprobes from a file.
func (found *file) detach() error {
	var errs []error
	for to, attachment := range found.attachments {
		if attachment == nil {
			continue
		}
		found.attachments[to] = nil
		if err := attachment.Close(); err != nil {
			errs = append(errs, fmt.Errorf("detach from %s: %w", found.name, err))
		}
	}
	return errors.Join(errs...)
}

func (found *file) attached() bool { return found.attachments != [uses]io.Closer{} }

// target finds out what there is to observe in a file.
func (f *Finder) target(opened *os.File, name string) Target {
	target := Target{Name: name}
	if !f.config.WithoutGo || f.config.Functions != nil || f.config.Mux != nil {
		program, err := site.Go(opened, f.config.GoFunctions...)
		if !f.note(name, err) {
			return target
		}
		target.GoVersion, target.GoModules, target.Sites = program.Version, program.Modules, program.Sites
		if program.Version != "" {
			return f.affordable(target)
		}
	}
	if !f.config.WithoutOpenSSL {
		sites, err := site.OpenSSL(opened)
		f.note(name, err)
		target.Sites = sites
	}
	return f.affordable(target)
}

// note counts files that could not be read, and tells whether there is a point in reading on.
func (f *Finder) note(name string, err error) bool {
	switch {
	case err == nil || errors.Is(err, site.ErrNone):
	case errors.Is(err, site.ErrUnsupported):
		f.logger.Info("the TLS of a program cannot be observed", zap.String("file", name), zap.Error(err))
	default:
		f.counts.unreadable.Add(1)
		f.logger.Debug("cannot look into a file", zap.String("file", name), zap.Error(err))
		return false
	}
	return true
}

// affordable leaves out sites that cost too much. A read needs both its sites.
func (f *Finder) affordable(target Target) Target {
	dear := map[string]bool{}
	for _, site := range target.Sites {
		if site.Cost > f.config.AllowCost {
			dear[site.Function] = true
		}
	}
	if len(dear) == 0 {
		return target
	}
	f.counts.tooCostly.Add(uint64(len(dear)))
	var kept []site.Site
	for _, site := range target.Sites {
		if !dear[site.Function] {
			kept = append(kept, site)
		}
	}
	target.Sites = kept
	return target
}

// identify tells files apart. What is no regular file is missing.
func identify(opened *os.File) (identity, error) {
	var status unix.Stat_t
	if err := unix.Fstat(int(opened.Fd()), &status); err != nil {
		return identity{}, err
	}
	if status.Mode&unix.S_IFMT != unix.S_IFREG {
		return identity{missing: true}, nil
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(int(opened.Fd()), &system); err != nil {
		return identity{}, err
	}
	id := identity{
		device: status.Dev, inode: status.Ino, bytes: status.Size, modified: status.Mtim, changed: status.Ctim,
	}
	if system.Type == unix.OVERLAYFS_SUPER_MAGIC {
		id.device, id.onOverlay = 0, true
	}
	return id, nil
}

// makeRoom forgets a file that has nothing to observe: if it is met again, it is looked into again. The mutex is held.
func (f *Finder) makeRoom() bool {
	for id, known := range f.files {
		if !known.attached() {
			delete(f.files, id)
			return true
		}
	}
	return false
}
