//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	idleAddresses     = 16
	idleSnapshots     = 10
	spareFiles        = 100 // of a process, besides its connections
	idleInterval      = time.Second
	idleRecordsPeriod = 5 * time.Second
)

// idleOrder is which port a process listens on or connects to, and how often.
type idleOrder struct {
	Port, Connections int
}

func idleServerRole() operations {
	var accepted atomic.Int64
	failed := make(chan error, 1)
	return operations{
		"listen": operation(func(order idleOrder) (none, error) {
			if _, err := raiseFileLimit(); err != nil {
				return none{}, err
			}
			listener, err := listen(order.Port)
			if err != nil {
				return none{}, err
			}
			go func() { failed <- acceptIdle(listener, &accepted) }()
			return none{}, nil
		}),
		"count": operation(func(none) (int, error) {
			select {
			case err := <-failed:
				return 0, err
			default:
				return int(accepted.Load()), nil
			}
		}),
	}
}

// acceptIdle reads what every client says, so that each connection has moved data and has an owner, and keeps it open.
func acceptIdle(listener int, accepted *atomic.Int64) error {
	waiting := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	buffer := make([]byte, 64)
	for {
		if _, err := unix.Poll(waiting, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for a connection: %w", err)
		}
		fd, err := accept(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		if _, err := unix.Read(fd, buffer); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		accepted.Add(1)
	}
}

func idleClientRole() operations {
	return operations{
		"open": operation(func(order idleOrder) (none, error) {
			if _, err := raiseFileLimit(); err != nil {
				return none{}, err
			}
			for i := range order.Connections {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return none{}, fmt.Errorf("open a socket: %w", err)
				}
				address := &unix.SockaddrInet4{Port: order.Port, Addr: [4]byte{127, 0, 0, byte(i%idleAddresses + 1)}}
				if err := unix.Connect(fd, address); err != nil {
					return none{}, fmt.Errorf("connect: %w", err)
				}
				if _, err := unix.Write(fd, []byte("hello")); err != nil {
					return none{}, fmt.Errorf("write: %w", err)
				}
			}
			return none{}, nil
		}),
	}
}

// crowd is the processes that hold idle connections.
type crowd struct {
	ns       *namespace
	children []*child
}

func (c *crowd) close() {
	for _, process := range c.children {
		process.stop()
	}
	c.ns.close()
	time.Sleep(settle)
}

// startCrowd prepares servers and clients; the clients connect when they are told to.
func startCrowd(connections int, life time.Duration) (*crowd, []idleOrder, error) {
	limit, err := raiseFileLimit()
	if err != nil {
		return nil, nil, err
	}
	processes := (connections + limit - spareFiles - 1) / (limit - spareFiles)
	if processes > len(servicePorts()) {
		return nil, nil, fmt.Errorf("%d connections need %d processes with the limit of %d open files: at most %d are made; raise ulimit -Hn",
			connections, processes, limit, len(servicePorts()))
	}
	ns, err := newNamespace(namespaceSettings(true))
	if err != nil {
		return nil, nil, err
	}
	c := &crowd{ns: ns}
	var orders []idleOrder
	for i := range processes {
		order := idleOrder{Port: servicePorts()[i], Connections: connections*(i+1)/processes - connections*i/processes}
		orders = append(orders, order)
		for _, role := range []string{idleServerName, idleClientName} {
			process, err := ns.start(role, life)
			if err != nil {
				c.close()
				return nil, nil, err
			}
			c.children = append(c.children, process)
		}
		if _, err := call[none](c.children[2*i], "listen", order); err != nil {
			c.close()
			return nil, nil, err
		}
	}
	return c, orders, nil
}

// connect opens all connections and waits until all are accepted.
func (c *crowd) connect(orders []idleOrder) error {
	for i, order := range orders {
		if _, err := call[none](c.children[2*i+1], "open", order); err != nil {
			return err
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			accepted, err := call[int](c.children[2*i], "count", none{})
			if err != nil {
				return err
			}
			if accepted == order.Connections {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%d of %d connections were accepted", accepted, order.Connections)
			}
		}
	}
	return nil
}

// idleFigures are those of one receiver beside idle connections.
type idleFigures struct {
	start          time.Duration // how long the receiver took to start
	memoryGrowth   float64       // MiB
	heap           float64       // MiB
	snapshots      []float64     // ms
	seen           int           // sockets in the last snapshot
	processor      float64       // ms a snapshot
	program        float64       // ms of the kernel's program in a snapshot, where statistics are on
	recordsLost    string
	recordsArrived int
}

func runIdle(opts options, r *report) error {
	const life = 5 * time.Minute
	c, orders, err := startCrowd(opts.connections, life)
	if err != nil {
		return err
	}
	defer c.close()

	snapshots := map[string]any{"tcp::snapshot_interval": idleInterval.String()}
	early, err := observeIdle(receiverOrder{Config: snapshots}, idleInterval, life, func() error { return c.connect(orders) })
	if err != nil {
		return err
	}
	seeded := receiverOrder{Config: snapshots}
	if opts.profile != "" {
		seeded.Profile = opts.profile + ".idle"
	}
	late, err := observeIdle(seeded, idleInterval, life, nil)
	if err != nil {
		return err
	}
	config := flowLogs()
	config["tcp::snapshot_interval"] = idleRecordsPeriod.String()
	config["kernel::program_stats"] = true
	records, err := observeIdle(receiverOrder{Config: config, Logs: true}, idleRecordsPeriod, life, nil)
	if err != nil {
		return err
	}

	row := func(name string, f *idleFigures) []string {
		return []string{
			name, fmt.Sprint(f.start.Round(time.Millisecond)), fmt.Sprint(f.seen),
			spreadOf(f.snapshots).format("%.0f"), fmt.Sprintf("%.0f", f.processor),
			fmt.Sprintf("%.1f", f.memoryGrowth), fmt.Sprintf("%.1f", f.heap),
		}
	}
	r.table(fmt.Sprintf("%d idle connections, both ends on this host", opts.connections),
		[]string{"receiver", "start", "sockets", "snapshot ms", "processor ms per snapshot", "RSS growth MiB", "heap MiB"},
		[][]string{
			row("started before them", early), row("started after them", late), row("with flow logs, after them", records),
		})
	r.progress("of a snapshot, %.0f ms are in the BPF program that reads the sockets", records.program)
	r.progress("with flow logs, %d records arrived; lost: %s", records.recordsArrived, cmp.Or(records.recordsLost, "none"))
	for _, f := range []struct {
		name string
		*idleFigures
	}{{"started before", early}, {"started after", late}} {
		took := spreadOf(f.snapshots)
		r.target("snapshot of "+strconv.Itoa(opts.connections)+" connections, receiver "+f.name, "< 250 ms", took.format("%.0f")+" ms",
			took.Median < 250 && f.seen >= 2*opts.connections)
	}
	return nil
}

// observeIdle runs a receiver while connections are open; connect opens them once it runs, unless they are open already.
func observeIdle(order receiverOrder, interval, life time.Duration, connect func() error) (*idleFigures, error) {
	receiver, err := startChild(receiverName, life)
	if err != nil {
		return nil, err
	}
	defer receiver.stop()
	resting, err := call[int](receiver, "rest", none{})
	if err != nil {
		return nil, err
	}
	figures := &idleFigures{}
	started := time.Now()
	if _, err := call[none](receiver, "start", order); err != nil {
		return nil, err
	}
	figures.start = time.Since(started)
	if connect != nil {
		time.Sleep(2 * interval)
		used, err := call[receiverUsage](receiver, "use", none{})
		if err != nil {
			return nil, err
		}
		resting = used.ResidentBytes
		if err := connect(); err != nil {
			return nil, err
		}
	}
	time.Sleep(2*interval + interval/2)
	before, err := call[receiverUsage](receiver, "use", none{})
	if err != nil {
		return nil, err
	}
	snapshots := idleSnapshots
	if order.Logs {
		snapshots = 3
	}
	time.Sleep(time.Duration(snapshots) * interval)
	after, err := call[receiverUsage](receiver, "use", none{})
	if err != nil {
		return nil, err
	}
	totals, err := call[receiverTotals](receiver, "stop", none{})
	if err != nil {
		return nil, err
	}
	taken := after.Snapshots[len(before.Snapshots):]
	if len(taken) == 0 {
		return nil, errors.New("the receiver logged no snapshot")
	}
	for _, s := range taken {
		figures.snapshots = append(figures.snapshots, float64(s.Took.Microseconds())/1e3)
		figures.seen = s.Connections
	}
	spent := after.User + after.System - before.User - before.System
	figures.processor = float64(spent.Microseconds()) / 1e3 / float64(len(taken))
	figures.memoryGrowth = float64(after.ResidentBytes-resting) / (1 << 20)
	figures.heap = float64(after.HeapBytes) / (1 << 20)
	program := after.Programs["tcp_snapshot"].Time - before.Programs["tcp_snapshot"].Time
	figures.program = float64(program.Microseconds()) / 1e3 / float64(len(taken))
	_, figures.recordsLost = lost(after)
	figures.recordsArrived = totals.RecordCount
	return figures, nil
}
