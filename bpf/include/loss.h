/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* Loss accounting: one per-CPU counter for each reason that an event may be lost. Nothing is dropped without one. */
#ifndef EBPFRECEIVER_LOSS_H
#define EBPFRECEIVER_LOSS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* Go reads the names from the generated constants; add new reasons before LOSS_REASONS. */
enum loss_reason {
	LOSS_RING_FULL,	   /* the ring (or perf buffer) had no room for an event */
	LOSS_STORAGE_FULL, /* state for a socket or task could not be allocated */
	LOSS_UNTRACKED,	   /* an object ended that was never seen to start and was not seeded */
	LOSS_UNTIED,	   /* the socket of what a library has encrypted or decrypted is not known */
	LOSS_PROGRAM_BUSY, /* a program had no memory of its own to work in, because others were under way */
	LOSS_REASONS,
};

/* Keeps the type information of the reasons for the Go bindings. */
const enum loss_reason *keep_loss_reason __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSS_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

/* Adds one to an entry of a per-CPU array of counters. */
static __always_inline void count_one(void *counters, __u32 which)
{
	__u64 *count = bpf_map_lookup_elem(counters, &which);

	if (count)
		__sync_fetch_and_add(count, 1); /* an interrupt may bring another program to this CPU in between */
}

static __always_inline void count_loss(__u32 reason)
{
	count_one(&losses, reason);
}

#endif
