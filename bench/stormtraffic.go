//go:build linux

package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	requestBytes  = 100
	responseBytes = 300
	maxFiles      = 1 << 16
)

// stormServer answers each connection's request and closes it.
type stormServer struct {
	epoll     int
	listeners [maxFiles]bool
	missing   [maxFiles]int // of a request, by file descriptor
	buffer    [4096]byte
	response  [responseBytes]byte

	stopping atomic.Bool
	ended    chan error
	counts   stormCounts
}

// stormCounts is what one side has done.
type stormCounts struct {
	Connections int
	Sent        int
	Received    int
	Processor   time.Duration
}

func stormServerRole() operations {
	var server *stormServer
	return operations{
		"listen": operation(func(none) (none, error) {
			var err error
			server, err = newStormServer()
			return none{}, err
		}),
		"finish": operation(func(none) (stormCounts, error) {
			server.stopping.Store(true)
			if err := <-server.ended; err != nil {
				return stormCounts{}, err
			}
			user, system, err := processorTime()
			server.counts.Processor = user + system
			return server.counts, err
		}),
	}
}

func newStormServer() (*stormServer, error) {
	if _, err := raiseFileLimit(); err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	s := &stormServer{epoll: epoll, ended: make(chan error, 1)}
	for _, port := range servicePorts() {
		listener, err := listen(port)
		if err != nil {
			return nil, err
		}
		s.listeners[listener] = true
		if err := watch(epoll, unix.EPOLL_CTL_ADD, listener, unix.EPOLLIN); err != nil {
			return nil, err
		}
	}
	go func() { s.ended <- s.run() }()
	return s, nil
}

func (s *stormServer) run() error {
	runtime.LockOSThread()
	events := make([]unix.EpollEvent, 256)
	for !s.stopping.Load() {
		n, err := unix.EpollWait(s.epoll, events, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for connections: %w", err)
		}
		for i := range max(n, 0) {
			fd := int(events[i].Fd)
			if s.listeners[fd] {
				err = s.accept(fd)
			} else {
				err = s.answer(fd)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stormServer) accept(listener int) error {
	for range 64 {
		fd, err := accept(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		if fd >= maxFiles {
			return fmt.Errorf("accept a connection: %d are open already", fd)
		}
		s.missing[fd] = requestBytes
		if err := s.answer(fd); err != nil {
			return err
		}
		if s.missing[fd] > 0 {
			if err := watch(s.epoll, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stormServer) answer(fd int) error {
	n, err := unix.Read(fd, s.buffer[:])
	switch {
	case err == unix.EAGAIN:
		return nil
	case err != nil:
		return fmt.Errorf("read a request: %w", err)
	case n == 0:
		return errors.New("read a request: the client has closed")
	}
	s.counts.Received += n
	s.missing[fd] -= n
	if s.missing[fd] > 0 {
		return nil
	}
	if n, err = unix.Write(fd, s.response[:]); err != nil {
		return fmt.Errorf("write a response: %w", err)
	}
	s.counts.Sent += n
	s.counts.Connections++
	return unix.Close(fd)
}

// stormOrder is what a client is to do.
type stormOrder struct {
	WarmUp, Window time.Duration
	Concurrency    int
	Addresses      int
	PerSecond      int  // 0: as many as can be
	Record         bool // remember when each connection was closed
}

// stormResult is what a client has done. Throughput is that of the window; the counts are of everything.
type stormResult struct {
	stormCounts
	PerSecond float64
	Closed    []closedConnection
}

// closedConnection is when a client called close, in nanoseconds of the wall clock.
type closedConnection struct {
	Port int
	Time int64
}

// stormClient keeps some connections under way: each is made, asked, read to its end and closed.
type stormClient struct {
	order        stormOrder
	epoll        int
	destinations []*unix.SockaddrInet4
	next         int
	asked        [maxFiles]bool
	buffer       [4096]byte
	request      [requestBytes]byte
	open         int
	started      int
	result       stormResult
}

func stormClientRole() operations {
	return operations{
		"run": operation(func(order stormOrder) (stormResult, error) {
			epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			if err != nil {
				return stormResult{}, fmt.Errorf("make an epoll: %w", err)
			}
			client := &stormClient{order: order, epoll: epoll, destinations: destinations(order.Addresses)}
			return client.run()
		}),
	}
}

func (c *stormClient) run() (stormResult, error) {
	runtime.LockOSThread()
	start := time.Now()
	windowStart, end := start.Add(c.order.WarmUp), start.Add(c.order.WarmUp+c.order.Window)
	patience := end.Add(5 * time.Second)
	countAtStart := -1
	var measuredFrom time.Time
	events := make([]unix.EpollEvent, 256)
	for {
		now := time.Now()
		if countAtStart < 0 && !now.Before(windowStart) {
			countAtStart, measuredFrom = c.result.Connections, now
		}
		if c.result.PerSecond == 0 && !now.Before(end) {
			c.result.PerSecond = float64(c.result.Connections-countAtStart) / now.Sub(measuredFrom).Seconds()
		}
		switch {
		case now.Before(end):
			if err := c.connectMore(now.Sub(start)); err != nil {
				return c.result, err
			}
		case c.open == 0:
			user, system, err := processorTime()
			c.result.Processor = user + system
			return c.result, err
		case now.After(patience):
			return c.result, fmt.Errorf("%d connections got no answer", c.open)
		}
		n, err := unix.EpollWait(c.epoll, events, 1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return c.result, fmt.Errorf("wait for answers: %w", err)
		}
		for i := range max(n, 0) {
			if err := c.proceed(int(events[i].Fd)); err != nil {
				return c.result, err
			}
		}
	}
}

func (c *stormClient) connectMore(elapsed time.Duration) error {
	for c.open < c.order.Concurrency {
		if c.order.PerSecond > 0 && float64(c.started) >= elapsed.Seconds()*float64(c.order.PerSecond) {
			return nil
		}
		if err := c.connect(); err != nil {
			return err
		}
	}
	return nil
}

func (c *stormClient) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	if fd >= maxFiles {
		return fmt.Errorf("open a socket: %d are open already", fd)
	}
	destination := c.destinations[c.next]
	c.next = (c.next + 1) % len(c.destinations)
	if err := unix.Connect(fd, destination); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect to port %d: %w", destination.Port, err)
	}
	c.open++
	c.started++
	c.asked[fd] = false
	if err := c.ask(fd); err != nil {
		return err
	}
	interest := uint32(unix.EPOLLOUT)
	if c.asked[fd] {
		interest = unix.EPOLLIN
	}
	return watch(c.epoll, unix.EPOLL_CTL_ADD, fd, interest)
}

// ask sends the request if the connection stands: on loopback it mostly does when connect returns.
func (c *stormClient) ask(fd int) error {
	n, err := unix.Write(fd, c.request[:])
	switch {
	case err == unix.EAGAIN:
		return nil
	case err != nil:
		return fmt.Errorf("write a request: %w", err)
	}
	c.result.Sent += n
	c.asked[fd] = true
	return nil
}

func (c *stormClient) proceed(fd int) error {
	if !c.asked[fd] {
		if err := c.ask(fd); err != nil || !c.asked[fd] {
			return err
		}
		return watch(c.epoll, unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN)
	}
	for {
		n, err := unix.Read(fd, c.buffer[:])
		switch {
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return fmt.Errorf("read a response: %w", err)
		case n == 0:
			return c.close(fd)
		}
		c.result.Received += n
	}
}

func (c *stormClient) close(fd int) error {
	c.open--
	c.result.Connections++
	if !c.order.Record {
		return unix.Close(fd)
	}
	port, err := localPort(fd)
	if err != nil {
		return err
	}
	c.result.Closed = append(c.result.Closed, closedConnection{Port: port, Time: time.Now().UnixNano()})
	return unix.Close(fd)
}
