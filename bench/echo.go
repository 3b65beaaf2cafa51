//go:build linux

package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

const (
	echoConnections = 32
	echoBytes       = 64
	echoCalls       = 4 // of an echo, both ends: to send and to receive on each
)

// echoServerRole sends back what it receives.
func echoServerRole() operations {
	ended := make(chan error, 1)
	return operations{
		"listen": operation(func(none) (none, error) {
			listener, err := listen(servicePorts()[0])
			if err != nil {
				return none{}, err
			}
			go func() { ended <- serveEcho(listener) }() // until the process ends
			return none{}, nil
		}),
		"finish": operation(func(none) (none, error) {
			select {
			case err := <-ended:
				return none{}, err
			default:
				return none{}, nil
			}
		}),
	}
}

func serveEcho(listener int) error {
	runtime.LockOSThread()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	if err := watch(epoll, unix.EPOLL_CTL_ADD, listener, unix.EPOLLIN); err != nil {
		return err
	}
	var buffer [4096]byte
	for {
		err := eachReady(epoll, -1, func(fd int) error {
			if fd == listener {
				accepted, err := accept(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
				if err != nil {
					return fmt.Errorf("accept a connection: %w", err)
				}
				return watch(epoll, unix.EPOLL_CTL_ADD, accepted, unix.EPOLLIN)
			}
			n, err := unix.Read(fd, buffer[:])
			if n > 0 {
				_, err = unix.Write(fd, buffer[:n])
			}
			switch {
			case n == 0, errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
				return unix.Close(fd) // the client has ended, with an echo under way
			case err != nil:
				return fmt.Errorf("echo: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// eachReady waits for sockets that can be read, for so many milliseconds at most (-1: for ever).
func eachReady(epoll, patience int, do func(fd int) error) error {
	var events [256]unix.EpollEvent
	n, err := unix.EpollWait(epoll, events[:], patience)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for what can be read: %w", err)
	}
	for i := range max(n, 0) {
		if err := do(int(events[i].Fd)); err != nil {
			return err
		}
	}
	return nil
}

// echoOrder is how long a client is to send.
type echoOrder struct {
	WarmUp, Window time.Duration
}

// echoResult is what a client has done: throughput of the window, the count of everything.
type echoResult struct {
	Echoes    int
	PerSecond float64
}

func (r echoResult) units() int         { return r.Echoes }
func (r echoResult) perSecond() float64 { return r.PerSecond }

func echoClientRole() operations { return operations{"run": operation(askEchoes)} }

// askEchoes has one small message under way on each connection.
func askEchoes(order echoOrder) (result echoResult, err error) {
	runtime.LockOSThread()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return result, fmt.Errorf("make an epoll: %w", err)
	}
	message, buffer := make([]byte, echoBytes), make([]byte, 4096)
	missing := map[int]int{} // of an echo, by file descriptor
	for range echoConnections {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return result, fmt.Errorf("open a socket: %w", err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, destinations(1)[0]); err != nil {
			return result, fmt.Errorf("connect: %w", err)
		}
		if err := watch(epoll, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
			return result, err
		}
		if _, err := unix.Write(fd, message); err != nil {
			return result, fmt.Errorf("write: %w", err)
		}
		missing[fd] = echoBytes
	}
	from := time.Now().Add(order.WarmUp)
	to := from.Add(order.Window)
	before := -1
	for {
		switch now := time.Now(); {
		case !now.Before(to):
			result.PerSecond = float64(result.Echoes-before) / now.Sub(from).Seconds()
			return result, nil
		case before < 0 && !now.Before(from):
			before, from = result.Echoes, now
		}
		err := eachReady(epoll, 100, func(fd int) error {
			n, err := unix.Read(fd, buffer)
			switch {
			case err != nil:
				return fmt.Errorf("read: %w", err)
			case n == 0:
				return errors.New("read: the server has closed")
			}
			if missing[fd] -= n; missing[fd] > 0 {
				return nil
			}
			result.Echoes++
			missing[fd] = echoBytes
			if _, err := unix.Write(fd, message); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			return nil
		})
		if err != nil {
			return result, err
		}
	}
}

func runEcho(opts options, r *report) error {
	echoes := traffic{
		server: echoServerName, client: echoClientName, listen: none{}, run: echoOrder{WarmUp: opts.warmUp, Window: opts.window},
		settings: namespaceSettings(true), life: opts.warmUp + opts.window + 30*time.Second,
	}
	variants := []variant{{"without", nil}, {"HTTP probe", httpReceiver(servicePorts()[0], true)}}
	compared, err := compare[echoResult, none]("", echoes, variants, opts, r)
	if err != nil {
		return err
	}
	programs, inspected, err := withStatistics[echoResult, none]("", "round trip", echoes, httpReceiver(servicePorts()[0], true), r)
	if err != nil {
		return err
	}
	compared.table(r, "", "round trip")
	r.table("BPF programs", []string{"ns per call that sends or receives"}, [][]string{{fmt.Sprintf("%.0f", 1e3*programs/echoCalls)}})

	throughput := compared.ratio(1)
	r.target("throughput of what is not HTTP, with the HTTP probe / without", ">= 0.98", throughput.format("%.3f"), throughput.Median >= 0.98)
	var found []string
	for _, w := range slices.Concat(compared.observed(), inspected) {
		if len(w.totals.Exchanges) > 0 || w.totals.SpanCount > 0 {
			found = append(found, fmt.Sprintf("%v, %d spans", w.totals.Exchanges, w.totals.SpanCount))
		}
		found = append(found, lostOf(http.ProbeName, w.after)...)
	}
	r.target("exchanges told of, or lost", "none", textOr(found, "none"), len(found) == 0)
	return nil
}
