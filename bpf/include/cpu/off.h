/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Which waits of threads become samples.
 *
 * Short ones are left out. Of the others, each CPU takes so many a second. Which ones is drawn: waits often end one
 * because of another, and always to take the first of them would never show the second. Each sample that is taken
 * counts for those that were left out since the one before it, as often and as long as itself.
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
	__u64 due_ns;	/* when it is full again */
	__u64 skipped;	/* since the last sample */
	__u64 begin_ns; /* since when waits are counted */
	__u32 waits;	/* since then */
	__u32 usual;	/* how many there are for each that may be sampled, in 1 / USUAL_ONE */
	__u32 to_skip;	/* before the next sample */
	__u32 reserved;
};

#define USUAL_ONE	256
#define USUAL_MAX	(1 << 30)
#define USUAL_PERIOD_NS 100000000ULL

/* Counts how many waits there are usually. */
static __always_inline void count_usual(struct wait_budget *budget, __u64 now_ns)
{
	__u64 elapsed_ns = now_ns - budget->begin_ns, usual;

	budget->waits++;
	if (elapsed_ns < USUAL_PERIOD_NS)
		return;
	/* An eighth more, so that hardly ever more would be sampled than may be. */
	usual = budget->waits * wait_interval_ns / (elapsed_ns / (USUAL_ONE + USUAL_ONE / 8));
	budget->usual = usual < USUAL_MAX ? usual : USUAL_MAX;
	budget->waits = 0;
	budget->begin_ns = now_ns;
}

/* Draws how many waits to leave out. */
static __always_inline __u32 draw_skips(const struct wait_budget *budget)
{
	__u64 most = budget->usual > USUAL_ONE ? 2 * (__u64)(budget->usual - USUAL_ONE) : 0;

	return (((__u64)bpf_get_prandom_u32() * most >> 32) + USUAL_ONE / 2) / USUAL_ONE;
}

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
	count_usual(budget, now_ns);
	due_ns = budget->due_ns < now_ns ? now_ns : budget->due_ns;
	if (budget->to_skip || due_ns - now_ns > wait_burst_ns) {
		if (budget->to_skip)
			budget->to_skip--;
		budget->skipped++;
		return 0;
	}
	budget->due_ns = due_ns + wait_interval_ns;
	weight = budget->skipped + 1;
	budget->skipped = 0;
	budget->to_skip = draw_skips(budget);
	return weight;
}

#endif
