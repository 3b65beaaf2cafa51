// Command peer is the Go program that the end-to-end tests observe; testdata/peer.py is the same in Python.
//
//	peer serve ADDRESS      answers every byte with two, on a port of its choice
//	peer connect ADDRESS    sends as many bytes as each line of its input says, over one connection
//	peer each ADDRESS       the same, a connection for each line
//	peer serve-grpc ADDRESS [CERTIFICATE]
//	                        serves gRPC's own test service, with a certificate in TLS
//	peer call ADDRESS [tls] makes as many unary calls as each line of its input says, over one connection
//
// On its output are JSON lines: where it listens, and what each connection carried by its own count.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
)

type report struct {
	Event     string `json:"event"`
	PID       int    `json:"pid"`
	LocalPort int    `json:"local_port"`
	PeerPort  int    `json:"peer_port"`
	Sent      int    `json:"sent"`
	Received  int    `json:"received"`
}

var output sync.Mutex

func (r report) print() {
	output.Lock()
	defer output.Unlock()
	r.PID = os.Getpid()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		panic(err)
	}
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: peer serve|connect|each|serve-grpc|call ADDRESS ...")
		os.Exit(2)
	}
	var err error
	switch address := os.Args[2]; os.Args[1] {
	case "serve":
		err = serve(address)
	case "connect":
		err = connect(address)
	case "each":
		err = each(address)
	case "serve-grpc":
		err = serveCalls(address, os.Args[3:]...)
	case "call":
		err = call(address, len(os.Args) > 3)
	default:
		err = fmt.Errorf("%q is not serve, connect, each, serve-grpc or call", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	report{Event: "listening", LocalPort: listener.Addr().(*net.TCPAddr).Port}.print()
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(connection)
	}
}

func answer(connection net.Conn) {
	r := describe("closed", connection)
	buffer := make([]byte, 16<<10)
	for {
		n, err := connection.Read(buffer)
		r.Received += n
		for range 2 {
			written, _ := connection.Write(buffer[:n])
			r.Sent += written
		}
		if err != nil {
			break
		}
	}
	connection.Close()
	r.print()
}

func connect(address string) error {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	describe("connected", connection).print()
	r := describe("closed", connection)
	err = eachLine(func(size int) error {
		if err := r.exchange(connection, size); err != nil {
			return err
		}
		describe("answered", connection).print()
		return nil
	})
	if err != nil {
		return err
	}
	connection.Close()
	r.print()
	return nil
}

func each(address string) error {
	return eachLine(func(size int) error {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer connection.Close()
		r := describe("closed", connection)
		if err := r.exchange(connection, size); err != nil {
			return err
		}
		connection.Close()
		r.print()
		return nil
	})
}

func eachLine(do func(size int) error) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		size, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		if err := do(size); err != nil {
			return err
		}
	}
	return lines.Err()
}

// exchange sends size bytes and reads the two for each that come back, piece by piece so that neither side blocks.
func (r *report) exchange(connection net.Conn, size int) error {
	buffer := make([]byte, 16<<10)
	for size > 0 {
		piece := min(size, len(buffer)/2)
		n, err := connection.Write(buffer[:piece])
		r.Sent += n
		if err != nil {
			return err
		}
		n, err = io.ReadFull(connection, buffer[:2*piece])
		r.Received += n
		if err != nil {
			return err
		}
		size -= piece
	}
	return nil
}

func describe(event string, connection net.Conn) report {
	return report{
		Event:     event,
		LocalPort: connection.LocalAddr().(*net.TCPAddr).Port,
		PeerPort:  connection.RemoteAddr().(*net.TCPAddr).Port,
	}
}
