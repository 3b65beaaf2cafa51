/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * What user space has told of processes: which ranges of their addresses are executable, and by which table stacks are
 * walked there.
 *
 * User space looks into a process when it is first sampled, and again when it executes code that was not known then.
 * Its mappings are a piece of one array, in the order of their addresses.
 */
#ifndef EBPFRECEIVER_CPU_PROCESS_H
#define EBPFRECEIVER_CPU_PROCESS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "task.h"

struct process {
	__u64 start_boot_ns; /* task_struct.start_boottime of the leader: a pid alone is used again */
	__u64 asked_ns;	     /* when user space was last asked to look again; the kernel's own */
	__u64 pages;	     /* mm_struct.exec_vm before the mappings were read */
	__u32 changes;	     /* changes_of then */
	__u32 first;	     /* of its mappings */
	__u32 count;	     /* of them */
	__u32 owner;	     /* what each of them has as owner */
	__u32 goroutine;     /* offset of g.goid in struct g; 0: no program of Go */
	__u32 parent;	     /* of g.parentGoid; 0: this version of Go has none */
	__u8 ignored;	     /* it is not selected */
	__u8 loading;	     /* user space was asked about it and has not answered yet; the kernel's own */
	__u8 serves;	     /* it serves requests: each of its samples is told of, with its time */
	__u8 reserved;
	__u16 generation; /* another one if an address may mean something else than it did */
	__u8 reserved_too[6];
};

enum mapping_kind {
	MAPPING_NONE,
	MAPPING_TABLE,	       /* there is a table */
	MAPPING_FRAME_POINTER, /* there is none, so frame pointers are tried, each checked */
	MAPPING_PENDING,       /* its file is being read; frame pointers meanwhile */
	MAPPING_SPECIAL,       /* no stack leads through it */
};

struct mapping {
	__u64 start, end;
	__u64 bias;    /* an address less this is what rows count */
	__u32 table;   /* in tables */
	__u32 buckets; /* how many of its first entries are the index */
	__u32 rows;    /* how many entries follow */
	__u32 owner;   /* of the process: one that is used again for another process has another */
	__u8 kind;     /* enum mapping_kind */
	__u8 shift;    /* a bucket is for so many addresses, as a power of two */
	__u8 reserved[6];
};

const struct process *keep_process __attribute__((unused));
const struct mapping *keep_mapping __attribute__((unused));
const enum mapping_kind *keep_mapping_kind __attribute__((unused));

/* Owner: user space, which also removes what has ended. Resized before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* thread group id in the initial namespace */
	__type(value, struct process);
} processes SEC(".maps");

/* Owner: user space, which writes into its memory. Resized before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct mapping);
} mappings SEC(".maps");

#define MAPPINGS_MASK	      (1U << 20) - 1 /* no array of them is larger */
#define MAPPINGS_SEARCH_STEPS 16

static __always_inline bool is_process(const struct process *process, struct task_struct *leader)
{
	return process && process->start_boot_ns == leader->start_boottime;
}

/*
 * The current process, or NULL. A child that has not executed a program of its own has what its parent has mapped:
 * then adopted is set, and user space has to be asked for its own.
 */
static __always_inline struct process *current_process(struct task_struct *task, bool *adopted)
{
	struct task_struct *leader = task->group_leader, *parent;
	__u32 pid = task->tgid;
	struct process *process = bpf_map_lookup_elem(&processes, &pid);

	*adopted = false;
	if (is_process(process, leader) && !process->loading)
		return process;
	if (!(leader->flags & PF_FORKNOEXEC))
		return NULL;
	parent = leader->real_parent;
	pid = parent->tgid;
	process = bpf_map_lookup_elem(&processes, &pid);
	*adopted = true;
	return is_process(process, parent->group_leader) && !process->loading ? process : NULL;
}

/* Whether it is known that the process is not selected. */
static __always_inline bool is_ignored(struct task_struct *task)
{
	__u32 pid = task->tgid;
	const struct process *process = bpf_map_lookup_elem(&processes, &pid);

	return is_process(process, task->group_leader) && process->ignored;
}

/*
 * Takes note that user space is asked about a process that it does not know, so that it hears of its end too. Says
 * false if it was asked already.
 */
static __always_inline bool begin_asking(struct task_struct *task, __u64 now_ns, __u64 interval_ns)
{
	struct process asked = {.asked_ns = now_ns, .loading = 1};
	struct process *process;
	__u32 pid = task->tgid;

	asked.start_boot_ns = task->group_leader->start_boottime;
	if (!bpf_map_update_elem(&processes, &pid, &asked, BPF_NOEXIST))
		return true;
	process = bpf_map_lookup_elem(&processes, &pid);
	if (!is_process(process, task->group_leader)) { /* one that had the number before, or there is no room */
		bpf_map_update_elem(&processes, &pid, &asked, BPF_ANY);
		return true;
	}
	if (now_ns - process->asked_ns < interval_ns)
		return false;
	process->asked_ns = now_ns;
	return true;
}

/* What mm_lock_seq is from Linux 6.13 on, and what it was from 6.4 to 6.12. */
struct seqcount {
	unsigned int sequence;
} __attribute__((preserve_access_index));

struct mm_struct___counted {
	struct seqcount mm_lock_seq;
} __attribute__((preserve_access_index));

struct mm_struct___older {
	int mm_lock_seq;
} __attribute__((preserve_access_index));

/* Changes whenever anything is mapped or unmapped; always 0 where the kernel does not count that. */
static __always_inline __u32 changes_of(struct mm_struct *mm)
{
	struct mm_struct___counted *counted = (void *)mm;
	struct mm_struct___older *older = (void *)mm;

	if (bpf_core_field_exists(counted->mm_lock_seq.sequence))
		return BPF_CORE_READ(counted, mm_lock_seq.sequence);
	if (bpf_core_field_exists(older->mm_lock_seq))
		return BPF_CORE_READ(older, mm_lock_seq);
	return 0;
}

/* Finds the mapping of an address, and copies it. */
static __always_inline bool find_mapping(const struct process *process, __u64 address, struct mapping *found)
{
	__u32 low = process->first, high = low + process->count;
	struct mapping *mapping;
	__u32 owner = process->owner, index;

	/* The last that does not begin behind the address. */
	for (int step = 0; step < MAPPINGS_SEARCH_STEPS && low < high; step++) {
		index = low + (high - low) / 2;
		mapping = bpf_map_lookup_elem(&mappings, &index);
		if (!mapping)
			return false;
		if (mapping->start <= address)
			low = index + 1;
		else
			high = index;
	}
	index = low - 1;
	mapping = low > process->first ? bpf_map_lookup_elem(&mappings, &index) : NULL;
	if (!mapping)
		return false;
	*found = *mapping;
	return found->owner == owner && address >= found->start && address < found->end;
}

#endif
