//go:build linux

package cpu

// endReasons names why a walk ended, as an attribute of the receiver's telemetry and of samples. Empty: it is complete.
var endReasons = [bpfWalkEndWALK_ENDS]string{
	bpfWalkEndWALK_TRUNCATED:         "truncated",
	bpfWalkEndWALK_UNKNOWN_PROCESS:   "unknown_process",
	bpfWalkEndWALK_TABLE_PENDING:     "table_pending",
	bpfWalkEndWALK_NO_MAPPING:        "no_mapping",
	bpfWalkEndWALK_UNSUPPORTED:       "unsupported_rule",
	bpfWalkEndWALK_UNREADABLE:        "unreadable_memory",
	bpfWalkEndWALK_FRAME_POINTER:     "frame_pointer",
	bpfWalkEndWALK_FRAME_POINTER_END: "frame_pointer_zero",
	bpfWalkEndWALK_SPECIAL:           "special_mapping",
	bpfWalkEndWALK_NARROW:            "narrow_program",
}

// lossReasons names the reasons of bpf/include/loss.h in the receiver's telemetry.
var lossReasons = [bpfLossReasonLOSS_REASONS]string{
	bpfLossReasonLOSS_RING_FULL:    "ring_full",
	bpfLossReasonLOSS_STORAGE_FULL: "storage_full",
}

// countNames names what the kernel side counts, as kinds of events in the receiver's telemetry.
var countNames = func() (names [bpfCpuCountCOUNTS]string) {
	names = [bpfCpuCountCOUNTS]string{
		bpfCpuCountCOUNT_SAMPLES:         "sample",
		bpfCpuCountCOUNT_SAMPLES_COUNTED: "sample_counted",
		bpfCpuCountCOUNT_FRAMES:          "frame",
		bpfCpuCountCOUNT_WALK_NS:         "walk_nanosecond",
		bpfCpuCountCOUNT_WALKS:           "walk",
		bpfCpuCountCOUNT_IGNORED:         "sample_unselected",
		bpfCpuCountCOUNT_END:             "walk_complete",
	}
	for end := bpfWalkEndWALK_COMPLETE + 1; end < bpfWalkEndWALK_ENDS; end++ {
		names[uint32(bpfCpuCountCOUNT_END)+uint32(end)] = "walk_" + endReasons[end]
	}
	return names
}()

func eventName(kind bpfCpuEventKind) string {
	switch kind {
	case bpfCpuEventKindCPU_STACK:
		return "stack"
	case bpfCpuEventKindCPU_SAMPLE:
		return "joined_sample"
	case bpfCpuEventKindCPU_PROCESS:
		return "process"
	case bpfCpuEventKindCPU_PROCESS_GONE:
		return "process_gone"
	}
	return ""
}
