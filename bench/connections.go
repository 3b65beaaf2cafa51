//go:build linux

package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Traffic is made with bare system calls from one thread, so that what is measured is the kernel's work.

// servicePorts are below the ephemeral ones of the namespace.
func servicePorts() []int { return []int{701, 702, 703, 704} }

// destinations are all pairs of a loopback address and a service port: each has its own 64,000 ephemeral ports.
func destinations(addresses int) []*unix.SockaddrInet4 {
	var result []*unix.SockaddrInet4
	for i := range addresses {
		for _, port := range servicePorts() {
			result = append(result, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, byte(i + 1)}})
		}
	}
	return result
}

func listen(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: port}),
		unix.Listen(fd, 65535),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

// accept spares the allocation of the peer's address.
func accept(listener, flags int) (int, error) {
	fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, uintptr(flags), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func watch(epoll, operation, fd int, events uint32) error {
	if err := unix.EpollCtl(epoll, operation, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

func localPort(fd int) (int, error) {
	var address unix.RawSockaddrInet4
	size := uint32(unsafe.Sizeof(address))
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, fmt.Errorf("read a socket's address: %w", errno)
	}
	port := address.Port // in network order
	return int(port>>8 | port<<8), nil
}

// raiseFileLimit lets this process have as many open files as it may, and says how many.
func raiseFileLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("raise the limit of open files to %d: %w", limit.Max, err)
	}
	return int(min(limit.Max, 1<<20)), nil
}

// processorTime is what this process has used, in user and in kernel mode.
func processorTime() (user, system time.Duration, err error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, 0, fmt.Errorf("read the processor time used: %w", err)
	}
	return time.Duration(used.Utime.Nano()), time.Duration(used.Stime.Nano()), nil
}

// pin keeps the calling thread on one processor.
func pin(cpu int) error {
	var cpus unix.CPUSet
	cpus.Set(cpu)
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("stay on processor %d: %w", cpu, err)
	}
	return nil
}
