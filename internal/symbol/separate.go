//go:build linux

package symbol

import (
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
)

// maxChecksummed is the largest file that a checksum is computed of, about a second for each gigabyte.
const maxChecksummed = 1 << 30

// openSeparate looks for the file with the symbols that were removed from this one: by its build ID, then by the name and
// checksum in .gnu_debuglink, as gdb does ("Debugging Information in Separate Files"); in the file system of the process,
// then in that of the host.
func (o *object) openSeparate(source File, hostRoot string, directories []string) (*object, error) {
	roots := []string{hostRoot}
	if source.Root != "" && source.Root != hostRoot {
		roots = []string{source.Root, hostRoot}
	}
	name, checksum, linked := o.debugLink()
	for _, root := range roots {
		for _, directory := range directories {
			if id := o.identity.GNU; len(id) > 2 {
				path := filepath.Join(directory, ".build-id", id[:2], id[2:]+".debug")
				if found, err := openDebug(root, path, func(candidate *object) bool {
					return candidate.identity.GNU == id
				}); err == nil {
					return found, nil
				}
			}
		}
		if !linked || source.Path == "" {
			continue
		}
		own := filepath.Dir(source.Path)
		paths := []string{filepath.Join(own, name), filepath.Join(own, ".debug", name)}
		for _, directory := range directories {
			paths = append(paths, filepath.Join(directory, own, name))
		}
		for _, path := range paths {
			if found, err := openDebug(root, path, func(candidate *object) bool {
				return len(candidate.file.bytes) <= maxChecksummed && crc32.ChecksumIEEE(candidate.file.bytes) == checksum
			}); err == nil {
				return found, nil
			}
		}
	}
	return nil, fmt.Errorf("find a separate debug file: %w", ErrNoSymbols)
}

func openDebug(root, path string, accept func(*object) bool) (found *object, err error) {
	opened, err := openInRoot(root, path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	mapped, err := mapFile(opened)
	if err != nil {
		return nil, err
	}
	err = guarded(func() error {
		if found, err = openObject(mapped); err != nil {
			return err
		}
		if !accept(found) {
			return errors.New("it belongs to another file")
		}
		return nil
	})
	if err != nil {
		mapped.close()
		return nil, fmt.Errorf("take %s for a debug file: %w", path, err)
	}
	return found, nil
}

// debugLink reads .gnu_debuglink: a name, padded to 4 bytes, and a checksum.
func (o *object) debugLink() (name string, checksum uint32, ok bool) {
	data := o.data(o.section(".gnu_debuglink"))
	name, ok = data.text(0)
	if !ok || name == "" || name != filepath.Base(name) || name == ".." || name == "." {
		return "", 0, false
	}
	checksum, ok = data.uint32((uint64(len(name)) + 1 + 3) &^ 3)
	return name, checksum, ok
}
