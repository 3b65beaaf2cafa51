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
