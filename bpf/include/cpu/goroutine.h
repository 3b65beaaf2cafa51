/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* Which goroutine of Go was running. */
#ifndef EBPFRECEIVER_CPU_GOROUTINE_H
#define EBPFRECEIVER_CPU_GOROUTINE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "cpu/process.h"
#include "cpu/registers.h"

/* Reads the ids of a g, if the stack that is in use is its own: else it is none. */
static __always_inline bool read_running(const struct process *process, __u64 g, __u64 stack, __u64 *id, __u64 *parent)
{
	__u64 bounds[2]; /* g.stack: lo, hi */

	if (bpf_probe_read_user(bounds, sizeof(bounds), (const void *)g) || stack <= bounds[0] || stack > bounds[1])
		return false;
	if (bpf_probe_read_user(id, sizeof(*id), (const void *)(g + process->goroutine)))
		*id = 0;
	if (*id && process->parent && bpf_probe_read_user(parent, sizeof(*parent), (const void *)(g + process->parent)))
		*parent = 0;
	return *id;
}

/*
 * The current goroutine is in a register (r14 on amd64, x28 on arm64), but for functions in assembly, which may use it
 * otherwise. On amd64 it is also in the thread's own memory, right below where fs points to (runtime.tlsg).
 */
static __always_inline void find_goroutine(const struct process *process, const struct user_registers *registers,
					   __u64 *id, __u64 *parent)
{
	if (read_running(process, goroutine_of(registers), stack_of(registers), id, parent))
		return;
#if defined(__TARGET_ARCH_x86)
	__u64 base = bpf_get_current_task_btf()->thread.fsbase, g;

	if (!bpf_probe_read_user(&g, sizeof(g), (const void *)(base - sizeof(g))))
		read_running(process, g, stack_of(registers), id, parent);
#endif
}

#endif
