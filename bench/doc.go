//go:build linux

// Command bench measures what the receiver costs: throughput with and without it, processor time, memory and delay.
//
// Every comparison alternates windows without and with the receiver in one run, so that what drifts hits both alike.
// Traffic and receiver run in child processes of their own, traffic in a network namespace that ends with them.
package main
