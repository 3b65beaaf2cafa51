//go:build linux

// Package symbol tells which function, source file and line an address belongs to, with the calls that were inlined there:
// for programs of Go, native programs and libraries, the kernel, and code that was compiled at run time.
package symbol
