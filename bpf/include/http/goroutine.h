/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Which goroutine makes a system call: in programs of Go, it moves from thread to thread.
 *
 * Go keeps the address of the current goroutine (struct g of runtime/runtime2.go) in a register, also in a system call:
 * r14 on amd64, r28 on arm64. Where its fields are depends on the version of Go, which user space looks up.
 */
#ifndef EBPFRECEIVER_HTTP_GOROUTINE_H
#define EBPFRECEIVER_HTTP_GOROUTINE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "http/message.h"
#include "syscall.h"

/* A process that is a program of Go. */
struct go_process {
	__u64 start_boot_ns; /* task_struct.start_boottime: its pid alone is used again */
	__u32 goid;	     /* offset of g.goid */
	__u32 parent_goid;   /* offset of g.parentGoid; 0: this version has none */
};

const struct go_process *keep_go_process __attribute__((unused));

/* What is at an address in the memory of a process. */
struct go_address {
	__u64 address;
	__u32 pid; /* thread group id in the initial namespace */
	__u32 reserved;
};

/* Owner: user space, which adds a process when it has looked into it; the oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32); /* thread group id in the initial namespace */
	__type(value, struct go_process);
} go_processes SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)

struct pt_regs___goroutine {
	unsigned long r14;
	unsigned long ax;
	unsigned long bx;
	unsigned long cx;
	unsigned long di;
	unsigned long sp;
};

#define first_argument(registers)    ((registers)->ax)
#define second_argument(registers)   ((registers)->bx)
#define third_argument(registers)    ((registers)->cx)
#define fourth_argument(registers)   ((registers)->di)
#define goroutine_address(registers) ((registers)->r14)
#define goroutine_stack(registers)   ((registers)->sp)

#else

struct pt_regs___goroutine {
	struct user_pt_regs user_regs;
};

#define first_argument(registers)    ((registers)->user_regs.regs[0])
#define second_argument(registers)   ((registers)->user_regs.regs[1])
#define third_argument(registers)    ((registers)->user_regs.regs[2])
#define fourth_argument(registers)   ((registers)->user_regs.regs[3])
#define goroutine_address(registers) ((registers)->user_regs.regs[28])
#define goroutine_stack(registers)   ((registers)->user_regs.sp)

#endif

#pragma clang attribute pop

/* In a function of Go, first_argument to fourth_argument are what its calling convention has there; behind a call, its
 * results. */

/* Reads the ids of the goroutine that a g is; stack is where the thread's stack is now. */
static __always_inline void read_goroutine(struct go_process *process, __u64 g, __u64 stack, __u64 *goid,
					   __u64 *parent_goid)
{
	__u64 bounds[2]; /* g.stack: lo, hi */

	/* Code that is not Go's, such as C's, has other things in the register, and runs on another stack. */
	if (bpf_probe_read_user(&bounds, sizeof(bounds), (const void *)g) || stack <= bounds[0] || stack > bounds[1])
		return;
	if (bpf_probe_read_user(goid, sizeof(*goid), (const void *)(g + process->goid)))
		*goid = 0;
	if (*goid && process->parent_goid &&
	    bpf_probe_read_user(parent_goid, sizeof(*parent_goid), (const void *)(g + process->parent_goid)))
		*parent_goid = 0;
}

/* The current process, where it is a program of Go that user space knows. */
static __always_inline struct go_process *current_go_process(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 pid = task->tgid;
	struct go_process *process = bpf_map_lookup_elem(&go_processes, &pid);

	if (!process || process->start_boot_ns != task->group_leader->start_boottime)
		return NULL;
	return process;
}

/* Counts up with each process that user space adds: what was looked up before may have changed. Owner: user space. */
volatile __u32 go_processes_added = 0;

/* What was found of the process that moved bytes on a connection last: to look it up for each message costs more. */
struct known_go {
	__u32 pid;
	__u32 added; /* go_processes_added then */
	struct go_process process;
	bool go;
	__u8 reserved[7];
};

/* As current_go_process, for a connection that remembers the last answer. */
static __always_inline struct go_process *known_go_process(struct known_go *known)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u32 added = go_processes_added;

	if (known->pid != pid || known->added != added) {
		struct go_process *process = current_go_process();

		known->pid = pid;
		known->added = added;
		known->go = process != NULL;
		if (process)
			known->process = *process;
	}
	return known->go ? &known->process : NULL;
}

#define GOROUTINE_BYTES 1024 /* of struct g that may be looked at; a power of two */

/*
 * Notes in a message who made the call. As read_goroutine, but reads once: each time costs more than what is read. It
 * is put behind what was captured.
 */
static __always_inline void note_goroutine(struct known_go *known, struct captured_message *captured)
{
	struct go_process *process = known_go_process(known);
	struct message *message = &captured->message;
	__u8 *read = captured->data + MAX_HEAD_BYTES;
	struct pt_regs___goroutine *registers;
	__u64 *bounds = (__u64 *)read; /* g.stack: lo, hi */
	__u32 goid, parent_goid, last;
	__u64 stack;

	if (!process || message->goroutine)
		return;
	goid = process->goid;
	parent_goid = process->parent_goid;
	last = goid > parent_goid ? goid : parent_goid;
	if (goid < 2 * sizeof(*bounds) || last > GOROUTINE_BYTES - sizeof(message->goroutine))
		return;
	registers = (struct pt_regs___goroutine *)bpf_task_pt_regs(bpf_get_current_task_btf());
	stack = goroutine_stack(registers);
	/* Bounds that the compiler cannot see through and the verifier can. */
	asm volatile("%0 &= %3\n\t%1 &= %3\n\t%2 &= %3"
		     : "+r"(goid), "+r"(parent_goid), "+r"(last)
		     : "i"(GOROUTINE_BYTES - sizeof(message->goroutine)));
	/* Code that is not Go's, such as C's, has other things in the register, and runs on another stack. */
	if (bpf_probe_read_user(read, last + sizeof(message->goroutine), (const void *)goroutine_address(registers)) ||
	    stack <= bounds[0] || stack > bounds[1])
		return;
	message->goroutine = *(__u64 *)(read + goid);
	if (message->goroutine && parent_goid)
		message->parent_goroutine = *(__u64 *)(read + parent_goid);
}

#endif
