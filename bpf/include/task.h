/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* What identifies a process: its pid is reused, its pid with its start time is not. */
#ifndef EBPFRECEIVER_TASK_H
#define EBPFRECEIVER_TASK_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* The start time of a task on the boot-time clock, as /proc/PID/stat shows it in clock ticks. */
static __always_inline __u64 task_start_boot_ns(struct task_struct *task)
{
	if (bpf_core_field_exists(task->start_boottime))
		return BPF_CORE_READ(task, start_boottime);
	return BPF_CORE_READ((struct task_struct___before_5_5 *)task, real_start_time);
}

#endif
