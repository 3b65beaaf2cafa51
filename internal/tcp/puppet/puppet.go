//go:build linux

// Package puppet gives tests a process of its own that opens, uses and ends TCP connections step by step as it is told.
//
// The probe does not observe its own process, so a test's traffic must come from others. A test binary becomes a puppet
// by calling Main first in its TestMain.
package puppet

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const variable = "EBPFRECEIVER_TEST_PUPPET"

// Command is one step. ID names a listener or connection of the puppet.
type Command struct {
	Op      string
	ID      int
	Network string
	Address string
	Bytes   int
	Count   int
	Timeout time.Duration
}

// Answer is what came of it.
type Answer struct {
	Error string
	ID    int
	Port  int
	Bytes int
	Count int
}

// Main serves as a puppet and does not return when this process was started as one.
func Main() {
	if os.Getenv(variable) == "" {
		return
	}
	p := &player{listeners: map[int]net.Listener{}, connections: map[int]net.Conn{}}
	decoder, encoder := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var command Command
		if err := decoder.Decode(&command); err != nil {
			os.Exit(0) // the test has gone
		}
		answer, err := p.play(command)
		if err != nil {
			answer.Error = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			os.Exit(1)
		}
	}
}

type player struct {
	next        int
	listeners   map[int]net.Listener
	connections map[int]net.Conn
}

func (p *player) keep(connection net.Conn) Answer {
	p.next++
	p.connections[p.next] = connection
	return Answer{ID: p.next, Port: connection.LocalAddr().(*net.TCPAddr).Port}
}

func (p *player) play(c Command) (Answer, error) {
	connection := p.connections[c.ID]
	switch c.Op {
	case "listen":
		listener, err := net.Listen(c.Network, c.Address)
		if err != nil {
			return Answer{}, err
		}
		p.next++
		p.listeners[p.next] = listener
		return Answer{ID: p.next, Port: listener.Addr().(*net.TCPAddr).Port}, nil
	case "unlisten":
		return Answer{}, p.listeners[c.ID].Close()
	case "accept":
		connection, err := p.listeners[c.ID].Accept()
		if err != nil {
			return Answer{}, err
		}
		return p.keep(connection), nil
	case "dial":
		connection, err := net.DialTimeout(c.Network, c.Address, c.Timeout)
		if err != nil {
			return Answer{}, err
		}
		return p.keep(connection), nil
	case "write":
		n, err := connection.Write(make([]byte, c.Bytes))
		return Answer{Bytes: n}, err
	case "read":
		n, err := io.ReadFull(connection, make([]byte, c.Bytes))
		return Answer{Bytes: n}, err
	case "drain":
		n, err := io.Copy(io.Discard, connection)
		return Answer{Bytes: int(n)}, err
	case "close":
		return Answer{}, connection.Close()
	case "close-write":
		return Answer{}, connection.(*net.TCPConn).CloseWrite()
	case "reset":
		if err := connection.(*net.TCPConn).SetLinger(0); err != nil {
			return Answer{}, err
		}
		return Answer{}, connection.Close()
	case "options":
		return Answer{}, setOptions(connection.(*net.TCPConn))
	case "serve":
		p.serve(p.listeners[c.ID], c.Bytes)
		return Answer{}, nil
	case "storm":
		return storm(c)
	}
	return Answer{}, fmt.Errorf("puppet: unknown step %q", c.Op)
}

// setOptions gives the socket the options of Options.
func setOptions(connection *net.TCPConn) error {
	raw, err := connection.SyscallConn()
	if err != nil {
		return err
	}
	var errs error
	err = raw.Control(func(fd uintptr) {
		errs = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, Mark),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, Priority),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, DSCP<<2),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, UserTimeoutMs),
			unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, CongestionControl),
		)
	})
	return errors.Join(err, errs)
}

// What the step "options" sets.
const (
	Mark              = 0x2a
	Priority          = 5
	DSCP              = 46
	UserTimeoutMs     = 12345
	CongestionControl = "reno"
)

// serve answers every connection, once it has been read to its end, with so many bytes.
func (p *player) serve(listener net.Listener, reply int) {
	answer := make([]byte, reply)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				if _, err := io.Copy(io.Discard, connection); err == nil {
					_, _ = connection.Write(answer)
				}
			}()
		}
	}()
}

// storm makes c.Count connections one after another, writes c.Bytes on each and reads the answers to their end.
func storm(c Command) (Answer, error) {
	var answer Answer
	request := make([]byte, c.Bytes)
	for range c.Count {
		connection, err := net.Dial(c.Network, c.Address)
		if err != nil {
			return answer, err
		}
		if _, err := connection.Write(request); err != nil {
			return answer, err
		}
		if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
			return answer, err
		}
		n, err := io.Copy(io.Discard, connection)
		if err != nil {
			return answer, err
		}
		connection.Close()
		answer.Count++
		answer.Bytes += int(n)
	}
	return answer, nil
}

// Puppet is a running one, seen from the test.
type Puppet struct {
	PID     int
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
	mutex   sync.Mutex
}

// Start makes a puppet of the running test binary, run by the wrapper where there is one (such as nsenter, which becomes
// the puppet by exec).
func Start(wrapper ...string) (*Puppet, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	words := append(slices.Clone(wrapper), executable)
	command := exec.Command(words[0], words[1:]...)
	command.Env = append(os.Environ(), variable+"=1")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start a puppet: %w", err)
	}
	return &Puppet{PID: command.Process.Pid, command: command, input: input, output: bufio.NewReader(output)}, nil
}

// Do plays one step and waits for its answer.
func (p *Puppet) Do(command Command) (Answer, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := json.NewEncoder(p.input).Encode(command); err != nil {
		return Answer{}, fmt.Errorf("tell a puppet to %s: %w", command.Op, err)
	}
	line, err := p.output.ReadBytes('\n')
	if err != nil {
		return Answer{}, fmt.Errorf("hear of a puppet's %s: %w", command.Op, err)
	}
	var answer Answer
	if err := json.Unmarshal(line, &answer); err != nil {
		return Answer{}, err
	}
	if answer.Error != "" {
		return answer, fmt.Errorf("puppet's %s: %s", command.Op, answer.Error)
	}
	return answer, nil
}

// Stop ends the puppet and waits for it.
func (p *Puppet) Stop() error {
	p.input.Close()
	return p.command.Wait()
}
