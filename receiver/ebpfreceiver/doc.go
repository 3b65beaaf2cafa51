// Package ebpfreceiver is the Collector receiver of type ebpf: it observes the host from the kernel, by eBPF, and hands
// what it sees to the pipelines as OTLP metrics and log records.
//
// The package holds configuration, lifecycle and hand-off only. What a probe knows about the kernel or about a protocol
// lives in its own package under internal/.
package ebpfreceiver

//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml
