//go:build linux

package http

import (
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

// siteCookie says to the kernel side what a site is, and where its values are: enum tls_cookie of bpf/include/http/tls.h.
func siteCookie(target tls.Target, at site.Site) uint64 {
	golang := target.GoVersion != ""
	switch {
	case at.Event == site.ReadReturn && golang:
		return cookie(bpfTlsEventTLS_GO_READ, at.Connection, at.Buffer, at.Result)
	case at.Event == site.WriteCall && golang:
		return cookie(bpfTlsEventTLS_GO_WRITE, at.Connection, at.Buffer, at.Length)
	case at.Event == site.ReadCall:
		return cookie(bpfTlsEventTLS_READ_CALL, at.Connection, at.Buffer, at.Count)
	case at.Event == site.ReadReturn && at.Connection.Known():
		return registersCookie(bpfTlsEventTLS_READ_END, at.Connection, at.Buffer, at.Count, at.Result, at.Peek)
	case at.Event == site.ReadReturn:
		return cookie(bpfTlsEventTLS_READ_RETURN, at.Result)
	case at.Event == site.WriteCall:
		return cookie(bpfTlsEventTLS_WRITE, at.Connection, at.Buffer, at.Length)
	case at.Event == site.ErrorQuery:
		return cookie(bpfTlsEventTLS_ERROR_QUERY, at.Connection, at.Result)
	}
	return 0 // no event
}

func cookie(event bpfTlsEvent, places ...site.Place) uint64 {
	encoded := uint64(event)
	for i := range 3 {
		place := uint64(bpfTlsCookieTLS_NO_PLACE)
		if i < len(places) && places[i].Known() {
			place = encodePlace(places[i])
		}
		encoded |= place << (uint(bpfTlsCookieTLS_EVENT_BITS) + uint(i)*uint(bpfTlsCookieTLS_PLACE_BITS))
	}
	return encoded
}

// registersCookie is for a site that has more values, all of them in registers.
func registersCookie(event bpfTlsEvent, places ...site.Place) uint64 {
	encoded := uint64(event)
	for i, place := range places {
		register := uint64(bpfTlsCookieTLS_NO_PLACE)
		if place.Known() {
			register = uint64(registerIndex[place.Register&15])
		}
		encoded |= register << (uint(bpfTlsCookieTLS_EVENT_BITS) + uint(i)*uint(bpfTlsCookieTLS_REGISTER_BITS))
	}
	return encoded
}

func encodePlace(place site.Place) uint64 {
	const offsetShift = uint(bpfTlsCookieTLS_REGISTER_BITS) + 1
	const offsetMask = 1<<uint(bpfTlsCookieTLS_OFFSET_BITS) - 1
	encoded := uint64(registerIndex[place.Register&15])
	if place.Memory {
		encoded |= uint64(bpfTlsCookieTLS_PLACE_IN_MEMORY)
		encoded |= uint64(place.Offset) & offsetMask << offsetShift
	}
	return encoded
}

// registerIndex is where struct pt_regs (arch/x86/include/asm/ptrace.h) has a register, in words.
var registerIndex = [16]uint8{
	site.RAX: 10, site.RCX: 11, site.RDX: 12, site.RBX: 5, site.RSP: 19, site.RBP: 4, site.RSI: 13, site.RDI: 14,
	site.R8: 9, site.R9: 8, site.R10: 7, site.R11: 6, site.R12: 3, site.R13: 2, site.R14: 1, site.R15: 0,
}
