/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Which waits of threads become samples.
 *
 * Short ones are left out. Of the others, each CPU takes so many a second, saved up for bursts; each sample that is
 * taken counts for those that were left out since the one before it, as often and as long as itself.
 */
#ifndef EBPFRECEIVER_CPU_OFF_H
#define EBPFRECEIVER_CPU_OFF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "cpu/sample.h"

const volatile __u64 minimum_wait_ns = 1000000;
const volatile __u64 wait_interval_ns = 2000000; /* between samples of a CPU, on average */
const volatile __u64 wait_burst_ns = 100000000;	 /* how much may be saved up */

/*
 * Whether stacks are walked when a thread gives its CPU up: where no program runs when it has one again. How long it
 * waits is not known then, so what is short is left out afterwards.
 */
const volatile bool walks_when_off = false;

struct wait {
	__u64 since_ns; /* 0: it is on a CPU */
	__u64 weight;	/* how many waits the sample in key is for; 0: there is none */
	__u32 kind;	/* enum sample_kind */
	__u32 reserved;
	struct sample_key key;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wait);
} waits SEC(".maps");

struct wait_budget {
	__u64 due_ns;  /* when it is full again */
	__u64 skipped; /* since the last sample */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wait_budget);
} wait_budgets SEC(".maps");

/* For how many waits a sample counts that is taken now; 0: none is to be taken. */
static __always_inline __u64 take_weight(__u64 now_ns)
{
	__u32 zero = 0;
	struct wait_budget *budget = bpf_map_lookup_elem(&wait_budgets, &zero);
	__u64 due_ns, weight;

	if (!budget)
		return 0;
	due_ns = budget->due_ns < now_ns ? now_ns : budget->due_ns;
	if (due_ns - now_ns > wait_burst_ns) {
		budget->skipped++;
		return 0;
	}
	budget->due_ns = due_ns + wait_interval_ns;
	weight = budget->skipped + 1;
	budget->skipped = 0;
	return weight;
}

#endif
