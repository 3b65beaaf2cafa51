//go:build linux

package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const bulkBytes = 128 << 10 // of one read or write

// bulkOrder is what a bulk client is to do.
type bulkOrder struct {
	WarmUp, Window time.Duration
}

// bulkResult is what one side of a bulk transfer has done; the rate is the client's.
type bulkResult struct {
	Bytes          int
	BytesPerSecond float64
}

func bulkServerRole() operations {
	received := make(chan error, 1)
	var result bulkResult
	return operations{
		"listen": operation(func(none) (none, error) {
			listener, err := listen(servicePorts()[0])
			if err != nil {
				return none{}, err
			}
			go func() { received <- receiveBulk(listener, &result) }()
			return none{}, nil
		}),
		"finish": operation(func(none) (bulkResult, error) { return result, <-received }),
	}
}

func receiveBulk(listener int, result *bulkResult) error {
	runtime.LockOSThread()
	if err := pin(0); err != nil {
		return err
	}
	waiting := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(waiting, -1); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for a connection: %w", err)
		}
	}
	fd, err := accept(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept a connection: %w", err)
	}
	defer unix.Close(fd)
	buffer := make([]byte, bulkBytes)
	for {
		n, err := unix.Read(fd, buffer)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return nil
		default:
			result.Bytes += n
		}
	}
}

func bulkClientRole() operations {
	return operations{"run": operation(sendBulk)}
}

func sendBulk(order bulkOrder) (bulkResult, error) {
	var result bulkResult
	runtime.LockOSThread()
	if err := pin(runtime.NumCPU() - 1); err != nil {
		return result, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return result, fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, destinations(1)[0]); err != nil {
		return result, fmt.Errorf("connect: %w", err)
	}
	buffer := make([]byte, bulkBytes)
	start := time.Now()
	bytesAtStart, measuredFrom := -1, start
	for {
		now := time.Now()
		if elapsed := now.Sub(start); elapsed >= order.WarmUp+order.Window {
			result.BytesPerSecond = float64(result.Bytes-bytesAtStart) / now.Sub(measuredFrom).Seconds()
			return result, nil
		} else if bytesAtStart < 0 && elapsed >= order.WarmUp {
			bytesAtStart, measuredFrom = result.Bytes, now
		}
		n, err := unix.Write(fd, buffer)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return result, fmt.Errorf("write: %w", err)
		}
		result.Bytes += max(n, 0)
	}
}

// bulkWindow is one connection in a namespace of its own.
func bulkWindow(traffic bulkOrder, order *receiverOrder) (sent bulkResult, differences []string, err error) {
	life := traffic.WarmUp + traffic.Window + 30*time.Second
	ns, err := newNamespace(namespaceSettings(true))
	if err != nil {
		return sent, nil, err
	}
	defer func() {
		ns.close()
		time.Sleep(settle)
	}()
	var receiver *child
	if order != nil {
		if receiver, err = startReceiverChild(order, life); err != nil {
			return sent, nil, err
		}
		defer receiver.stop()
	}
	server, err := ns.start(bulkServerName, life)
	if err != nil {
		return sent, nil, err
	}
	defer server.stop()
	if _, err := call[none](server, "listen", none{}); err != nil {
		return sent, nil, err
	}
	client, err := ns.start(bulkClientName, life)
	if err != nil {
		return sent, nil, err
	}
	defer client.stop()
	time.Sleep(settle)
	if sent, err = call[bulkResult](client, "run", traffic); err != nil {
		return sent, nil, err
	}
	received, err := call[bulkResult](server, "finish", none{})
	if err != nil || receiver == nil {
		return sent, nil, err
	}
	time.Sleep(settle)
	totals, err := call[receiverTotals](receiver, "stop", none{})
	if err != nil {
		return sent, nil, err
	}
	for role, bytes := range map[string]int{"client": totals.Metrics["client"].Sent, "server": totals.Metrics["server"].Received} {
		if bytes != received.Bytes {
			differences = append(differences, fmt.Sprintf("%d bytes were read, the receiver says %d for the %s", received.Bytes, bytes, role))
		}
	}
	return sent, differences, nil
}

func runBulk(opts options, r *report) error {
	traffic := bulkOrder{WarmUp: opts.warmUp, Window: opts.window}
	variants := append([]variant{{"without", nil}, {"metrics", &receiverOrder{}}}, opts.against...)
	rates := make([][][]float64, len(variants))
	all := make([][]float64, len(variants))
	var differences []string
	for round := range opts.rounds {
		for i := range variants {
			rates[i] = append(rates[i], nil)
		}
		for _, i := range mirrored(len(variants)) {
			v := variants[i]
			sent, different, err := bulkWindow(traffic, v.order)
			if err != nil {
				return err
			}
			rates[i][round] = append(rates[i][round], sent.BytesPerSecond)
			all[i] = append(all[i], sent.BytesPerSecond*8/1e9)
			if v.order != nil && v.order.Binary == "" {
				differences = append(differences, different...)
			}
		}
		r.progress("round %d: ratio %.4f", round+1, sum(rates[1][round])/sum(rates[0][round]))
	}
	var rows [][]string
	for i, v := range variants {
		rows = append(rows, []string{
			v.name, spreadOf(all[i]).format("%.1f"), spreadOf(ratios(rates[i], rates[0])).format("%.4f"),
		})
	}
	r.table("one connection (median, min .. max)", []string{"receiver", "Gbit/s", "ratio"}, rows)
	throughput := spreadOf(ratios(rates[1], rates[0]))
	r.target("throughput with / without", ">= 0.99", throughput.format("%.4f"), throughput.Median >= 0.99)
	seen := "all"
	if len(differences) > 0 {
		seen = fmt.Sprint(differences)
	}
	r.target("bytes seen", "exactly those moved", seen, len(differences) == 0)
	return nil
}
