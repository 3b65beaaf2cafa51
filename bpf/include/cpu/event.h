/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* What the CPU probe tells user space. */
#ifndef EBPFRECEIVER_CPU_EVENT_H
#define EBPFRECEIVER_CPU_EVENT_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "cpu/process.h"

#define KERNEL_FRAMES 127 /* PERF_MAX_STACK_DEPTH: what the kernel gives at most */
#define USER_FRAMES   512
#define ALL_FRAMES    1024 /* room for both, as a power of two: the verifier sees that an index is within it */

enum cpu_event_kind {
	CPU_STACK = 1,	  /* the addresses of a stack */
	CPU_PROCESS,	  /* a process that user space is to look into, or to look into again */
	CPU_SAMPLE,	  /* a sample of a process that serves requests */
	CPU_PROCESS_GONE, /* one that has ended or executed another program, after user space had looked into it */
};

/* Every event begins with this, and only that of a stack has more. */
struct cpu_event {
	__u64 start_boot_ns;
	__u64 cgroup_id; /* in the version 2 hierarchy */
	__u32 pid;	 /* thread group id in the initial namespace */
	__u8 kind;	 /* enum cpu_event_kind */
	__u8 kernel_thread;
	__u8 reserved[2];
	char comm[16]; /* of the process */
	__u64 pages;   /* mm_struct.exec_vm: how much code it has mapped */
	__u32 changes; /* changes_of */
	__u32 reserved_too;
};

struct stack_event {
	struct cpu_event process;
	__u64 stack; /* as in the sample's key */
	__u16 kernel_frames;
	__u16 user_frames;
	__u8 end; /* enum walk_end */
	__u8 reserved[3];
	__u64 addresses[ALL_FRAMES]; /* of the kernel's frames, then of the others, innermost first; sent as far as
					there are any */
};

const struct cpu_event *keep_cpu_event __attribute__((unused));
const struct stack_event *keep_stack_event __attribute__((unused));
const enum cpu_event_kind *keep_cpu_event_kind __attribute__((unused));

static __always_inline void describe_process(struct cpu_event *event, enum cpu_event_kind kind)
{
	struct task_struct *task = bpf_get_current_task_btf();

	event->start_boot_ns = task->group_leader->start_boottime;
	event->cgroup_id = bpf_get_current_cgroup_id();
	event->pid = task->tgid;
	event->kind = kind;
	event->kernel_thread = task->flags & PF_KTHREAD ? 1 : 0;
	__builtin_memset(event->reserved, 0, sizeof(event->reserved));
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), task->group_leader->comm);
	event->pages = task->mm ? task->mm->exec_vm : 0;
	event->changes = task->mm ? changes_of(task->mm) : 0;
	event->reserved_too = 0;
}

#endif
