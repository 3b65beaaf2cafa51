//go:build linux

package workload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sys/unix"
)

const (
	fileIDKernfs = 0xfe // FILEID_KERNFS of include/linux/exportfs.h: the handle is the node's 64-bit id

	maxKnownCgroups       = 4096
	maxWalkedDirectories  = 20_000
	minBetweenWalks       = 5 * time.Second
	maxMountInfoFileBytes = 1 << 20
)

// cgroupTree finds the path of a version 2 cgroup by the id that sockets and tasks carry in the kernel. It serves
// when the process itself has gone.
type cgroupTree struct {
	mountPoint string
	mountRoot  string // the cgroup that is mounted there, "/" unless a part of the tree is
	mount      int    // open directory of mountPoint

	mutex    sync.Mutex
	byHandle bool // false once the kernel has refused it
	lastWalk time.Time
	known    *lru.Cache[uint64, string]
	now      func() time.Time
}

// openCgroupTree finds the version 2 hierarchy among our mounts. On a hybrid host it is not at the top of cgroupFS.
func openCgroupTree(procFS, cgroupFS string) (*cgroupTree, error) {
	content, _, err := readAt(unix.AT_FDCWD, filepath.Join(procFS, "self/mountinfo"), make([]byte, maxMountInfoFileBytes))
	if err != nil {
		return nil, fmt.Errorf("find the cgroup2 mount in %s/self/mountinfo: %w", procFS, err)
	}
	mountPoint, mountRoot, found := findCgroup2Mount(content, cgroupFS)
	if !found {
		return nil, errors.New("find the cgroup2 mount: none is mounted; mount one with: mount -t cgroup2 cgroup2 DIRECTORY")
	}
	mount, err := unix.Open(mountPoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup2 mount %s: %w", mountPoint, err)
	}
	known, err := lru.New[uint64, string](maxKnownCgroups)
	if err != nil {
		unix.Close(mount)
		return nil, fmt.Errorf("make the store of cgroup paths: %w", err)
	}
	return &cgroupTree{
		mountPoint: mountPoint, mountRoot: mountRoot, mount: mount, byHandle: true, known: known, now: time.Now,
	}, nil
}

func (c *cgroupTree) close() {
	if c == nil {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.mount >= 0 {
		unix.Close(c.mount)
		c.mount = -1
	}
}

// findCgroup2Mount reads mountinfo (proc_pid_mountinfo(5)): "36 35 98:0 /root /mount/point options tags - type source
// options". The mount below preferred wins over others, the last over earlier ones that it hides.
func findCgroup2Mount(content []byte, preferred string) (mountPoint, mountRoot string, found bool) {
	for line := range bytes.Lines(content) {
		before, after, separated := strings.Cut(string(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !separated || len(left) < 6 || len(right) < 1 || right[0] != "cgroup2" {
			continue
		}
		point := unescapeMount(left[4])
		below := point == preferred || strings.HasPrefix(point, strings.TrimSuffix(preferred, "/")+"/")
		if found && !below {
			continue
		}
		mountPoint, mountRoot, found = point, cleanCgroupPath(unescapeMount(left[3])), true
	}
	return mountPoint, mountRoot, found
}

// unescapeMount undoes the octal escapes of white space and backslashes in mountinfo.
func unescapeMount(text string) string {
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if value, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(value))
				i += 3
				continue
			}
		}
		plain.WriteByte(text[i])
	}
	return plain.String()
}

// path tells where the cgroup with this id is, "" when it is not known or has been removed.
func (c *cgroupTree) path(id uint64) string {
	if c == nil || id == 0 {
		return ""
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if path, found := c.known.Get(id); found {
		return path
	}
	if c.mount < 0 {
		return ""
	}
	if c.byHandle {
		path, err := c.openByHandle(id)
		if err == nil {
			c.known.Add(id, path)
			return path
		}
		if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) {
			return ""
		}
		// No CAP_DAC_READ_SEARCH in the initial user namespace, or a kernel before 5.5.
		c.byHandle = false
	}
	// A walk reads the whole tree, so it learns all of it, and is not repeated for each id that has been removed.
	if now := c.now(); c.lastWalk.IsZero() || now.Sub(c.lastWalk) >= minBetweenWalks {
		c.lastWalk = now
		c.walk()
	}
	if path, found := c.known.Get(id); found {
		return path
	}
	// Before 5.5 the id is a generation and an inode number.
	if id>>32 != 0 {
		if path, found := c.known.Get(id & 0xffff_ffff); found {
			return path
		}
	}
	return ""
}

func (c *cgroupTree) openByHandle(id uint64) (string, error) {
	var bytes [8]byte
	binary.NativeEndian.PutUint64(bytes[:], id)
	directory, err := unix.OpenByHandleAt(c.mount, unix.NewFileHandle(fileIDKernfs, bytes[:]),
		unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("open cgroup %d by its handle: %w", id, err)
	}
	defer unix.Close(directory)
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(directory))
	if err != nil {
		return "", fmt.Errorf("name cgroup %d: %w", id, err)
	}
	return c.fromMount(target), nil
}

// fromMount turns a path in the file system into a path in the hierarchy.
func (c *cgroupTree) fromMount(path string) string {
	relative := strings.TrimPrefix(path, c.mountPoint)
	return cleanCgroupPath(filepath.Join("/", c.mountRoot, relative))
}

func (c *cgroupTree) walk() {
	directories := 0
	// Cgroups come and go while we walk: what cannot be read is passed over.
	_ = filepath.WalkDir(c.mountPoint, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil
		}
		if directories++; directories > maxWalkedDirectories {
			return fs.SkipAll
		}
		var status unix.Stat_t
		if unix.Lstat(path, &status) == nil {
			c.known.Add(status.Ino, c.fromMount(path))
		}
		return nil
	})
}

// usage reports how many paths are kept, and how many may be.
func (c *cgroupTree) usage() (entries, capacity int) {
	if c == nil {
		return 0, maxKnownCgroups
	}
	return c.known.Len(), maxKnownCgroups
}
