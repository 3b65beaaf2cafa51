/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Processes that send or receive many messages of HTTP/1 in one call, of which only the first lie in what is copied.
 * User space finds them, and has more copied of their calls.
 */
#ifndef EBPFRECEIVER_HTTP_PIPELINING_H
#define EBPFRECEIVER_HTTP_PIPELINING_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/message.h"

/* How much of a message is copied at most, for its head. */
const volatile __u32 head_bytes = 512;

/* Set by user space once there are any. */
bool pipelining_seen = false;

/* By process id, with the start time. Owner: user space, which has a bound of its own; the oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} pipelining SEC(".maps");

/* Whether the current process is one of them. */
static __always_inline bool is_pipelining(void)
{
	struct task_struct *task;
	__u64 *start;
	__u32 pid;

	if (!pipelining_seen)
		return false;
	task = bpf_get_current_task_btf();
	pid = task->tgid;
	start = bpf_map_lookup_elem(&pipelining, &pid);
	return start && *start == task->group_leader->start_boottime;
}

/* How much of a call is copied in which a head begins. */
static __always_inline __u32 bytes_to_copy(__u32 length)
{
	return length > head_bytes && is_pipelining() ? MAX_HEAD_BYTES : head_bytes;
}

/* The same of a call in which a head goes on, of which no more than so much would be copied. */
static __always_inline __u32 bytes_to_copy_further(__u32 length, __u32 left)
{
	__u32 most = pipelining_seen ? bytes_to_copy(length) : 0;

	return most > head_bytes ? most : left;
}

#endif
