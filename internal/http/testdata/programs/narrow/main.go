// Command narrow speaks HTTP/1.1 with the system calls that its arguments name. It is for 32-bit systems, whose calls have
// other numbers and structures:
//
//	narrow serve RECEIVE SEND
//	narrow fetch SEND RECEIVE PORT PATH REQUEST_BYTES RESPONSE_BYTES
//
// It prints what the programs of the tests print: its port, and a record for each request.
package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// The numbers of recvfrom and recvmsg, which the library does not use on 386: it takes socketcall.
var directCalls = map[string][2]uintptr{"386": {371, 372}, "arm": {292, 297}}[runtime.GOARCH]

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 3 {
		return fmt.Errorf("called with %q", arguments)
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	address := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if arguments[0] == "fetch" {
		return fetch(socket, address, arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], arguments[6])
	}
	if err := syscall.Bind(socket, address); err != nil {
		return err
	}
	if err := syscall.Listen(socket, 16); err != nil {
		return err
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		return err
	}
	fmt.Printf("{\"port\":%d}\n", name.(*syscall.SockaddrInet4).Port)
	for {
		connection, _, err := syscall.Accept(socket)
		if err != nil {
			return err
		}
		line, fields, received, err := message(connection, arguments[1])
		if err != nil {
			return err
		}
		method, path := strings.Fields(line)[0], strings.Fields(line)[1]
		size, _ := strconv.Atoi(fields["x-response-bytes"])
		if err := send(connection, arguments[2], fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size), size); err != nil {
			return err
		}
		fmt.Printf("{\"method\":%q,\"path\":%q,\"status\":200,\"received\":%d,\"sent\":%d}\n", method, path, received, size)
		_ = syscall.Close(connection)
	}
}

func fetch(socket int, address *syscall.SockaddrInet4, sendMode, receiveMode, port, path, request, response string) error {
	address.Port, _ = strconv.Atoi(port)
	if err := syscall.Connect(socket, address); err != nil {
		return err
	}
	size, _ := strconv.Atoi(request)
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Response-Bytes: %s\r\n\r\n", path, size, response)
	if err := send(socket, sendMode, head, size); err != nil {
		return err
	}
	line, _, received, err := message(socket, receiveMode)
	if err != nil {
		return err
	}
	fmt.Printf("{\"method\":\"POST\",\"path\":%q,\"status\":%s,\"received\":%d,\"sent\":%d}\n",
		path, strings.Fields(line)[1], received, size)
	return nil
}

// message reads a message with a Content-Length, and gives its first line, its fields, and how long its body is.
func message(socket int, mode string) (line string, fields map[string]string, size int, err error) {
	var data []byte
	wanted := -1
	for wanted < 0 || len(data) < wanted {
		more, err := receive(socket, mode)
		if err != nil || len(more) == 0 {
			return "", nil, 0, fmt.Errorf("the message ends after %d bytes: %w", len(data), err)
		}
		data = append(data, more...)
		head, _, whole := bytes.Cut(data, []byte("\r\n\r\n"))
		if !whole || wanted >= 0 {
			continue
		}
		lines := strings.Split(string(head), "\r\n")
		line, fields = lines[0], map[string]string{}
		for _, field := range lines[1:] {
			name, value, _ := strings.Cut(field, ": ")
			fields[strings.ToLower(name)] = value
		}
		size, _ = strconv.Atoi(fields["content-length"])
		wanted = len(head) + 4 + size
	}
	return line, fields, size, nil
}

// segments makes a vector of a buffer, the first of which are small.
func segments(buffer []byte) []syscall.Iovec {
	var list []syscall.Iovec
	for _, cut := range []int{2, 3, 30, len(buffer)} {
		cut = min(cut, len(buffer))
		if cut > 0 {
			list = append(list, syscall.Iovec{Base: &buffer[0]})
			list[len(list)-1].SetLen(cut)
		}
		buffer = buffer[cut:]
	}
	return list
}

func receive(socket int, mode string) ([]byte, error) {
	buffer := make([]byte, 1<<16)
	list := segments(buffer)
	header := syscall.Msghdr{Iov: &list[0]}
	header.Iovlen = uint32(len(list))
	var (
		count uintptr
		errno syscall.Errno
		n     int
		err   error
	)
	first, descriptor := uintptr(unsafe.Pointer(&buffer[0])), uintptr(socket)
	switch mode {
	case "read":
		n, err = syscall.Read(socket, buffer)
		return buffer[:max(0, n)], err
	case "recv":
		n, _, err = syscall.Recvfrom(socket, buffer, 0)
		return buffer[:max(0, n)], err
	case "recvmsg":
		n, _, _, _, err = syscall.Recvmsg(socket, buffer, nil, 0)
		return buffer[:max(0, n)], err
	case "readv":
		count, _, errno = syscall.Syscall(syscall.SYS_READV, descriptor, uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)))
	case "direct recvfrom":
		count, _, errno = syscall.Syscall6(directCalls[0], descriptor, first, uintptr(len(buffer)), 0, 0, 0)
	case "direct recvmsg":
		count, _, errno = syscall.Syscall(directCalls[1], descriptor, uintptr(unsafe.Pointer(&header)), 0)
	default:
		return nil, fmt.Errorf("no way to receive is called %q", mode)
	}
	runtime.KeepAlive(buffer)
	if errno != 0 {
		return nil, errno
	}
	return buffer[:count], nil
}

func send(socket int, mode, head string, size int) error {
	data := append([]byte(head), bytes.Repeat([]byte{'x'}, size)...)
	for len(data) > 0 {
		list := segments(data)
		var (
			n   int
			err error
		)
		switch mode {
		case "write":
			n, err = syscall.Write(socket, data)
		case "sendmsg":
			n, err = syscall.SendmsgN(socket, data, nil, nil, 0)
		case "writev":
			count, _, errno := syscall.Syscall(
				syscall.SYS_WRITEV, uintptr(socket), uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)))
			if n = int(count); errno != 0 {
				err = errno
			}
		default:
			err = fmt.Errorf("no way to send is called %q", mode)
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
