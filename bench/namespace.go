//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace with nothing but a loopback device. It lives in a thread of its own, and ends when
// that thread and all processes started in it have ended: what the traffic left in the kernel goes with it.
type namespace struct {
	work chan func()
	done chan struct{}
}

// settings of every namespace. TIME-WAIT takes ports for a minute: there are more ports than a window needs, and the
// table has room for all, so that no window meets what others do not.
func namespaceSettings(reuseTimeWait bool) map[string]string {
	settings := map[string]string{
		"net/ipv4/ip_local_port_range": "1024 65535",
		"net/ipv4/tcp_max_tw_buckets":  "2000000",
		"net/ipv4/tcp_tw_reuse":        "2",
		"net/core/somaxconn":           "65535",
	}
	if !reuseTimeWait {
		settings["net/ipv4/tcp_tw_reuse"] = "0"
	}
	return settings
}

func newNamespace(settings map[string]string) (*namespace, error) {
	n := &namespace{work: make(chan func()), done: make(chan struct{})}
	made := make(chan error)
	go func() {
		defer close(n.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := enterNamespace(settings)
		made <- err
		if err != nil {
			return
		}
		for work := range n.work {
			work()
		}
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return n, nil
}

func enterNamespace(settings map[string]string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare (root is needed): %w", err)
	}
	for name, value := range settings {
		// These files are those of the namespace of the thread that opens them.
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	device, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	device.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, device); err != nil {
		return fmt.Errorf("set the loopback device up: %w", err)
	}
	return nil
}

// start runs a child in the namespace.
func (n *namespace) start(role string, life time.Duration) (started *child, err error) {
	finished := make(chan struct{})
	n.work <- func() {
		defer close(finished)
		started, err = startChild(role, life)
	}
	<-finished
	return started, err
}

// close lets go of the namespace. Its processes must have been stopped.
func (n *namespace) close() {
	close(n.work)
	<-n.done
}
