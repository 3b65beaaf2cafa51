//go:build linux

package http

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// What include/uapi/linux/io_uring.h calls so, with IORING_ before it.
const (
	uringReadVector, uringWriteVector = 1, 2
	uringReadFixed, uringWriteFixed   = 4, 5
	uringSendMessage                  = 9
	uringReceiveMessage               = 10
	uringRead, uringWrite             = 22, 23
	uringSend, uringReceive           = 26, 27
	uringProvideBuffers               = 31
	uringSendZeroCopy                 = 47
	uringSendMessageZeroCopy          = 48

	uringSetupSQPoll        = 1 << 1
	uringSetupSingleIssuer  = 1 << 12
	uringSetupDeferTaskrun  = 1 << 13
	uringEnterGetEvents     = 1
	uringEnterWakeUp        = 2
	uringNeedsWakeUp        = 1
	uringRegisterBuffers    = 0
	uringRegisterEventFD    = 4
	uringRegisterBufferRing = 22
	uringAsync              = 1 << 4 // of a request
	uringSelectBuffer       = 1 << 5
	uringMultishot          = 1 << 1 // of a receive
	uringMore               = 1 << 1 // of a completion
	uringNotification       = 1 << 3
	uringBufferShift        = 16
	uringMapSQEs            = 0x10000000
)

type uringOffsets struct {
	Head, Tail, Mask, Entries, Flags, Dropped, Array, Reserved uint32
	User                                                       uint64
}

type uringParameters struct {
	SQEntries, CQEntries, Flags, CPU, Idle, Features, Worker uint32
	Reserved                                                 [3]uint32
	SQ                                                       uringOffsets
	CQ                                                       struct {
		Head, Tail, Mask, Entries, Overflow, CQEs, Flags, Reserved uint32
		User                                                       uint64
	}
}

type uringRequest struct {
	Operation, Flags uint8
	Priority         uint16
	Descriptor       int32
	Offset, Address  uint64
	Length, OpFlags  uint32
	User             uint64
	Buffer           uint16
	Personality      uint16
	File             int32
	Address3, Pad    uint64
}

type uringCompletion struct {
	User   uint64
	Result int32
	Flags  uint32
}

const (
	uringSlots      = 8
	uringBufferSize = 1 << 16
	uringBuffers    = 16
)

// uring is an io_uring of one thread, with one request under way at a time.
type uring struct {
	descriptor, event     int
	parameters            uringParameters
	rings                 []byte
	requests              *[uringSlots]uringRequest
	memory                []byte // uringBuffers buffers, and one for what a request refers to
	bufferRing            []byte
	buffered              uint16
	receiveMode, sendMode string
	armed, provided       bool
}

func pointer(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }

func anonymous(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

func newUring(receiveMode, sendMode string) (*uring, error) {
	u := &uring{receiveMode: receiveMode, sendMode: sendMode, event: -1}
	switch receiveMode {
	case "polled":
		u.parameters.Flags, u.parameters.Idle = uringSetupSQPoll, 1000
	case "deferred":
		u.parameters.Flags = uringSetupSingleIssuer | uringSetupDeferTaskrun
	}
	descriptor, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uringSlots, uintptr(unsafe.Pointer(&u.parameters)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	u.descriptor = int(descriptor)
	size := max(int(u.parameters.SQ.Array)+4*uringSlots, int(u.parameters.CQ.CQEs)+int(u.parameters.CQEntries)*16)
	var err error
	protection, flags := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE
	if u.rings, err = unix.Mmap(u.descriptor, 0, size, protection, flags); err != nil {
		return nil, err
	}
	requests, err := unix.Mmap(u.descriptor, uringMapSQEs, uringSlots*64, protection, flags)
	if err != nil {
		return nil, err
	}
	u.requests = (*[uringSlots]uringRequest)(unsafe.Pointer(&requests[0]))
	if u.memory, err = anonymous((uringBuffers + 1) * uringBufferSize); err != nil {
		return nil, err
	}
	if receiveMode == "elsewhere" {
		if u.event, err = unix.Eventfd(0, 0); err != nil {
			return nil, err
		}
		event := int32(u.event)
		if err := u.register(uringRegisterEventFD, unsafe.Pointer(&event)); err != nil {
			return nil, err
		}
	}
	if receiveMode == "fixed" || sendMode == "fixed" {
		vector := unix.Iovec{Base: &u.memory[0], Len: uringBuffers * uringBufferSize}
		if err := u.register(uringRegisterBuffers, unsafe.Pointer(&vector)); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (u *uring) register(what uintptr, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(u.descriptor), what, uintptr(argument), 1, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_register %d: %w", what, errno)
	}
	return nil
}

func (u *uring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.rings[offset])) }

func (u *uring) buffer(index int) []byte {
	return u.memory[index*uringBufferSize:][:uringBufferSize]
}

func (u *uring) submit(request uringRequest) error {
	tail := *u.word(u.parameters.SQ.Tail)
	slot := tail % uringSlots
	u.requests[slot] = request
	*u.word(u.parameters.SQ.Array + 4*slot) = slot
	atomic.StoreUint32(u.word(u.parameters.SQ.Tail), tail+1)
	submitted, flags := uintptr(1), uintptr(0)
	if u.parameters.Flags&uringSetupSQPoll != 0 {
		if atomic.LoadUint32(u.word(u.parameters.SQ.Flags))&uringNeedsWakeUp == 0 {
			return nil
		}
		flags = uringEnterWakeUp
	}
	return u.enter(submitted, 0, flags)
}

func (u *uring) enter(submitted, wanted, flags uintptr) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.descriptor), submitted, wanted, flags, 0, 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
	}
}

// wait gives the next completion.
func (u *uring) wait() (uringCompletion, error) {
	for {
		head := *u.word(u.parameters.CQ.Head)
		if head != atomic.LoadUint32(u.word(u.parameters.CQ.Tail)) {
			index := head & *u.word(u.parameters.CQ.Mask)
			completion := *(*uringCompletion)(unsafe.Pointer(&u.rings[u.parameters.CQ.CQEs+16*index]))
			atomic.StoreUint32(u.word(u.parameters.CQ.Head), head+1)
			if completion.Flags&uringNotification != 0 {
				continue
			}
			return completion, nil
		}
		if u.event >= 0 {
			// The bytes come while the thread is in another system call, whose buffer is not theirs.
			var count [8]byte
			if _, err := unix.Read(u.event, count[:]); err != nil && err != unix.EINTR {
				return uringCompletion{}, err
			}
			continue
		}
		if err := u.enter(0, 1, uringEnterGetEvents); err != nil {
			return uringCompletion{}, err
		}
	}
}

func (u *uring) do(request uringRequest) (uringCompletion, error) {
	if err := u.submit(request); err != nil {
		return uringCompletion{}, err
	}
	completion, err := u.wait()
	if err == nil && completion.Result < 0 {
		err = fmt.Errorf("operation %d: %w", request.Operation, unix.Errno(-completion.Result))
	}
	return completion, err
}

// vector makes segments of a buffer, the first of which are small, in the memory that requests refer to.
func (u *uring) vector(data []byte) []unix.Iovec {
	list := unsafe.Slice((*unix.Iovec)(unsafe.Pointer(&u.buffer(uringBuffers)[256])), 4)
	for i, cut := range []int{2, 3, 0, len(data)} {
		cut = min(cut, len(data))
		list[i] = unix.Iovec{Len: uint64(cut)}
		if cut > 0 {
			list[i].Base = &data[0]
		}
		data = data[cut:]
	}
	return list
}

// messageHeader makes a msghdr of segments.
func (u *uring) messageHeader(data []byte) (address uint64) {
	list := u.vector(data)
	header := (*unix.Msghdr)(unsafe.Pointer(&u.buffer(uringBuffers)[0]))
	*header = unix.Msghdr{Iov: &list[0]}
	header.SetIovlen(len(list))
	return uint64(uintptr(unsafe.Pointer(header)))
}

// receive gives the next bytes of a socket; none: its end.
func (u *uring) receive(socket int) ([]byte, error) {
	buffer := u.buffer(0)
	request := uringRequest{
		Operation: uringReceive, Descriptor: int32(socket), Address: pointer(buffer), Length: uringBufferSize,
	}
	switch u.receiveMode {
	case "read":
		request.Operation = uringRead
	case "readv":
		request.Operation = uringReadVector
		list := u.vector(buffer)
		request.Address, request.Length = uint64(uintptr(unsafe.Pointer(&list[0]))), uint32(len(list))
	case "recvmsg":
		request.Operation, request.Address, request.Length = uringReceiveMessage, u.messageHeader(buffer), 1
	case "fixed":
		request.Operation = uringReadFixed
	case "async":
		request.Flags = uringAsync
	case "small":
		request.Length = 10
	case "selected", "multishot":
		return u.receiveProvided(request)
	}
	completion, err := u.do(request)
	return buffer[:max(0, completion.Result)], err
}

// receiveProvided lets the kernel choose one of the buffers that it was given.
func (u *uring) receiveProvided(request uringRequest) ([]byte, error) {
	request.Address, request.Length, request.Flags = 0, 0, uringSelectBuffer
	if !u.provided {
		u.provided = true
		if err := u.provide(); err != nil {
			return nil, err
		}
	}
	if u.receiveMode == "multishot" {
		request.Priority = uringMultishot
	}
	for {
		if !u.armed {
			if err := u.submit(request); err != nil {
				return nil, err
			}
		}
		completion, err := u.wait()
		if err != nil {
			return nil, err
		}
		u.armed = completion.Flags&uringMore != 0
		if completion.Result == -int32(unix.ENOBUFS) {
			continue
		}
		if completion.Result <= 0 {
			return nil, nil
		}
		index := int(completion.Flags >> uringBufferShift)
		data := bytes.Clone(u.buffer(index)[:completion.Result])
		return data, u.giveBack(index)
	}
}

// provide gives the kernel all buffers, for multishot in a ring.
func (u *uring) provide() error {
	if u.receiveMode == "selected" {
		_, err := u.do(uringRequest{
			Operation: uringProvideBuffers, Descriptor: uringBuffers, Address: pointer(u.memory), Length: uringBufferSize,
		})
		return err
	}
	var err error
	if u.bufferRing, err = anonymous(os.Getpagesize()); err != nil {
		return err
	}
	registration := struct {
		Address        uint64
		Entries        uint32
		Group, Flags   uint16
		MinimumLeft    uint32
		Reserved       uint32
		FurtherReserve [2]uint64
	}{Address: pointer(u.bufferRing), Entries: uringBuffers}
	if err := u.register(uringRegisterBufferRing, unsafe.Pointer(&registration)); err != nil {
		return err
	}
	for i := range uringBuffers {
		if err := u.giveBack(i); err != nil {
			return err
		}
	}
	return nil
}

func (u *uring) giveBack(index int) error {
	if u.receiveMode == "selected" {
		_, err := u.do(uringRequest{
			Operation: uringProvideBuffers, Descriptor: 1, Address: pointer(u.buffer(index)), Length: uringBufferSize,
			Offset: uint64(index),
		})
		return err
	}
	slot := u.bufferRing[int(u.buffered%uringBuffers)*16:]
	binary.NativeEndian.PutUint64(slot, pointer(u.buffer(index)))
	binary.NativeEndian.PutUint32(slot[8:], uringBufferSize)
	binary.NativeEndian.PutUint16(slot[12:], uint16(index))
	u.buffered++
	binary.NativeEndian.PutUint16(u.bufferRing[14:], u.buffered)
	return nil
}

// send sends all of data, in as many requests as it takes.
func (u *uring) send(socket int, data []byte) error {
	for len(data) > 0 {
		buffer := u.buffer(uringBuffers - 1)
		buffer = buffer[:copy(buffer, data)]
		request := uringRequest{
			Operation: uringSend, Descriptor: int32(socket), Address: pointer(buffer), Length: uint32(len(buffer)),
		}
		switch u.sendMode {
		case "sendmsg", "zerocopymsg":
			request.Operation, request.Address, request.Length = uringSendMessage, u.messageHeader(buffer), 1
			if u.sendMode == "zerocopymsg" {
				request.Operation = uringSendMessageZeroCopy
			}
		case "write":
			request.Operation = uringWrite
		case "writev":
			request.Operation = uringWriteVector
			list := u.vector(buffer)
			request.Address, request.Length = uint64(uintptr(unsafe.Pointer(&list[0]))), uint32(len(list))
		case "zerocopy":
			request.Operation = uringSendZeroCopy
		case "fixed":
			request.Operation = uringWriteFixed
		case "async":
			request.Flags = uringAsync
		}
		completion, err := u.do(request)
		if err != nil {
			return err
		}
		if strings.HasPrefix(u.sendMode, "zerocopy") {
			time.Sleep(10 * time.Millisecond) // the buffer is its own until the peer has the bytes
		}
		data = data[completion.Result:]
	}
	return nil
}

// message reads a message with a Content-Length, and gives its first line, its fields, and how long its body is.
func (u *uring) message(socket int, before *[]byte) (line string, fields map[string]string, size int, err error) {
	data := *before
	for !bytes.Contains(data, []byte("\r\n\r\n")) {
		more, err := u.receive(socket)
		if err != nil || len(more) == 0 {
			return "", nil, 0, err
		}
		data = append(data, more...)
	}
	head, body, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	lines := strings.Split(string(head), "\r\n")
	fields = map[string]string{}
	for _, field := range lines[1:] {
		name, value, _ := strings.Cut(field, ": ")
		fields[strings.ToLower(name)] = value
	}
	size, _ = strconv.Atoi(fields["content-length"])
	have := len(body)
	for have < size {
		more, err := u.receive(socket)
		if err != nil || len(more) == 0 {
			return "", nil, 0, fmt.Errorf("the body ends after %d of %d bytes: %w", have, size, err)
		}
		body = more
		have += len(more)
	}
	*before = bytes.Clone(body[len(body)-(have-size):])
	return lines[0], fields, size, nil
}

// uringMain sends and receives by io_uring, as a server (serve RECEIVE SEND, or serve HTTP/2 RECEIVE SEND) or a client (fetch SEND RECEIVE PORT and
// requests, as PATH REQUEST_BYTES RESPONSE_BYTES).
func uringMain(arguments []string) error {
	runtime.LockOSThread()
	var out records
	if arguments[0] == "fetch" {
		return uringFetch(&out, arguments[1], arguments[2], arguments[3], arguments[4:])
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(listener, 16); err != nil {
		return err
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	port := name.(*unix.SockaddrInet4).Port
	if arguments[0] == "serve HTTP/2" {
		return uringServeHTTP2(&out, listener, port, arguments[1], arguments[2])
	}
	u, err := newUring(arguments[1], arguments[2])
	if err != nil {
		return err
	}
	out.say(record{Port: port})
	for {
		socket, _, err := unix.Accept(listener)
		if err != nil {
			return err
		}
		if err := u.serve(&out, socket); err != nil {
			return err
		}
		_ = unix.Close(socket)
	}
}

func (u *uring) serve(out *records, socket int) error {
	var before []byte
	for {
		line, fields, received, err := u.message(socket, &before)
		if err != nil || line == "" {
			return err
		}
		method, target, _ := strings.Cut(line, " ")
		path, _, _ := strings.Cut(target, " ")
		size, _ := strconv.Atoi(fields["x-response-bytes"])
		response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("y", size))
		if err := u.send(socket, response); err != nil {
			return err
		}
		out.say(record{Method: method, Path: path, Status: 200, Received: int64(received), Sent: int64(size)})
	}
}

func uringFetch(out *records, send, receive, port string, requests []string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	if err := unix.Connect(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: number}); err != nil {
		return err
	}
	u, err := newUring(receive, send)
	if err != nil {
		return err
	}
	var before []byte
	for ; len(requests) >= 3; requests = requests[3:] {
		size, err := strconv.Atoi(requests[1])
		if err != nil {
			return err
		}
		start := time.Now()
		request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Response-Bytes: %s\r\n\r\n%s",
			requests[0], size, requests[2], strings.Repeat("x", size))
		if err := u.send(socket, request); err != nil {
			return err
		}
		line, _, received, err := u.message(socket, &before)
		if err != nil {
			return err
		}
		status, err := strconv.Atoi(strings.Fields(line)[1])
		if err != nil {
			return err
		}
		out.say(record{
			Method: "POST", Path: requests[0], Status: status, Sent: int64(size), Received: int64(received),
			Ns: int64(time.Since(start)),
		})
	}
	return unix.Close(socket)
}

// uringConnection is a connection with an io_uring for each direction.
type uringConnection struct {
	net.Conn // nothing of it is needed
	socket   int
	receiver *uring
	sender   *uring
	rest     []byte
}

func (c *uringConnection) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		data, err := c.receiver.receive(c.socket)
		if err != nil {
			return 0, err
		}
		if len(data) == 0 {
			return 0, io.EOF
		}
		c.rest = data
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *uringConnection) Write(b []byte) (int, error)      { return len(b), c.sender.send(c.socket, b) }
func (c *uringConnection) Close() error                     { return unix.Shutdown(c.socket, unix.SHUT_RDWR) }
func (c *uringConnection) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *uringConnection) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *uringConnection) SetDeadline(time.Time) error      { return nil }
func (c *uringConnection) SetReadDeadline(time.Time) error  { return nil }
func (c *uringConnection) SetWriteDeadline(time.Time) error { return nil }

// uringServeHTTP2 answers with as many bytes as a request's query asks for.
func uringServeHTTP2(out *records, listener, port int, receive, send string) error {
	for announced := false; ; announced = true {
		receiver, err := newUring(receive, send)
		if err != nil {
			return err
		}
		sender, err := newUring(receive, send)
		if err != nil {
			return err
		}
		if !announced {
			out.say(record{Port: port})
		}
		socket, _, err := unix.Accept(listener)
		if err != nil {
			return err
		}
		connection := &uringConnection{socket: socket, receiver: receiver, sender: sender}
		go new(http2.Server).ServeConn(connection, &http2.ServeConnOpts{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				received, _ := io.Copy(io.Discard, r.Body)
				size, _ := strconv.Atoi(r.URL.Query().Get("size"))
				_, _ = w.Write(make([]byte, size))
				out.say(record{Method: r.Method, Path: r.URL.Path, Status: 200, Received: received, Sent: int64(size)})
			}),
		})
	}
}
