//go:build linux

package tls

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// mapping is a file that a process may execute code from.
type mapping struct {
	span    string // as in /proc/PID/map_files
	path    string // in the mount namespace of the process
	deleted bool   // the path names another file by now, or none
}

const maxMapsBytes = 8 << 20 // of /proc/PID/maps; browsers and databases come to one

// readMaps reads what /proc/PID/maps says (proc_pid_maps(5)): one mapping for each file, in the order of their addresses.
func readMaps(reader io.Reader, most int) (mappings []mapping, truncated bool, err error) {
	seen := map[string]bool{}
	limited := &io.LimitedReader{R: reader, N: maxMapsBytes}
	scanner := bufio.NewScanner(limited)
	scanner.Buffer(nil, 64<<10)
	for scanner.Scan() {
		span, rest, _ := bytes.Cut(scanner.Bytes(), []byte{' '})
		permissions, rest, _ := bytes.Cut(rest, []byte{' '})
		_, rest, _ = bytes.Cut(rest, []byte{' '}) // offset
		device, rest, _ := bytes.Cut(rest, []byte{' '})
		inode, rest, found := bytes.Cut(rest, []byte{' '})
		if !found || len(permissions) < 3 || permissions[2] != 'x' || string(inode) == "0" {
			continue
		}
		path := bytes.TrimLeft(rest, " ")
		if len(path) == 0 || path[0] != '/' {
			continue
		}
		// The mappings of one file are told by its inode: two files may have had the same path.
		file := string(device) + " " + string(inode) + " " + string(path)
		if seen[file] {
			continue
		}
		if len(mappings) == most {
			return mappings, true, nil
		}
		seen[file] = true
		name, deleted := bytes.CutSuffix(path, []byte(" (deleted)"))
		mappings = append(mappings, mapping{span: fileSpan(span), path: string(name), deleted: deleted})
	}
	if err := scanner.Err(); err != nil {
		return mappings, true, fmt.Errorf("read the mappings of a process: %w", err)
	}
	return mappings, limited.N <= 0, nil
}

// fileSpan is the name of a range of addresses in /proc/PID/map_files, which has no leading zeros.
func fileSpan(span []byte) string {
	start, end, _ := bytes.Cut(span, []byte{'-'})
	return string(bytes.TrimLeft(start, "0")) + "-" + string(bytes.TrimLeft(end, "0"))
}
