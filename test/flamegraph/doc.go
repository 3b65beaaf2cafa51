// Package flamegraph tests the flame graph of ebpfprofile in a real browser.
//
// It is a module of its own: what drives the browser is nothing that a user of the receiver should download.
package flamegraph
