/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * The registers of a thread in user mode.
 *
 * Wherever the thread is now, they lie at the beginning of its kernel stack: put there by the system call, the fault or
 * the interrupt that it left user mode by.
 */
#ifndef EBPFRECEIVER_CPU_REGISTERS_H
#define EBPFRECEIVER_CPU_REGISTERS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#if defined(__TARGET_ARCH_x86)

/* struct pt_regs of arch/x86/include/uapi/asm/ptrace.h: ABI, also for what a perf event's program gets. */
struct user_registers {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#define USER_MODE_SELECTOR 3	/* SEGMENT_RPL_MASK of arch/x86/include/asm/segment.h */
#define NARROW_SELECTOR	   0x23 /* __USER32_CS */

static __always_inline bool in_user_mode(const struct user_registers *registers)
{
	return registers->cs & USER_MODE_SELECTOR;
}

static __always_inline bool of_narrow_program(const struct user_registers *registers)
{
	return registers->cs == NARROW_SELECTOR;
}

#define instruction_of(registers)   ((registers)->ip)
#define stack_of(registers)	    ((registers)->sp)
#define frame_pointer_of(registers) ((registers)->bp)
#define link_of(registers)	    0
#define goroutine_of(registers)	    ((registers)->r14)

/* A register by its DWARF number: System V ABI for AMD64, figure 3.36. */
static __always_inline __u64 dwarf_register(const struct user_registers *registers, __u32 number)
{
	switch (number) {
	case 0:
		return registers->ax;
	case 1:
		return registers->dx;
	case 2:
		return registers->cx;
	case 3:
		return registers->bx;
	case 4:
		return registers->si;
	case 5:
		return registers->di;
	case 8:
		return registers->r8;
	case 9:
		return registers->r9;
	case 10:
		return registers->r10;
	case 11:
		return registers->r11;
	case 12:
		return registers->r12;
	case 13:
		return registers->r13;
	case 14:
		return registers->r14;
	case 15:
		return registers->r15;
	}
	return 0;
}

/* No return address is signed. */
#define ADDRESS_BITS (~0ULL)

#elif defined(__TARGET_ARCH_arm64)

/* struct user_pt_regs of arch/arm64/include/uapi/asm/ptrace.h: ABI. */
struct user_registers {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

#define PSTATE_MODE   0x0000000f /* PSR_MODE_MASK */
#define PSTATE_NARROW 0x00000010 /* PSR_MODE32_BIT */

static __always_inline bool in_user_mode(const struct user_registers *registers)
{
	return !(registers->pstate & PSTATE_MODE);
}

static __always_inline bool of_narrow_program(const struct user_registers *registers)
{
	return registers->pstate & PSTATE_NARROW;
}

#define instruction_of(registers)   ((registers)->pc)
#define stack_of(registers)	    ((registers)->sp)
#define frame_pointer_of(registers) ((registers)->regs[29])
#define link_of(registers)	    ((registers)->regs[30])
#define goroutine_of(registers)	    ((registers)->regs[28])

/* A register by its DWARF number: DWARF for the Arm 64-bit Architecture, 4.1. */
static __always_inline __u64 dwarf_register(const struct user_registers *registers, __u32 number)
{
	return number < 31 ? registers->regs[number & 31] : 0;
}

/* Pointer authentication signs in the bits above an address of 48 bits. */
#define ADDRESS_BITS		    ((1ULL << 48) - 1)

#else
#error "registers.h knows amd64 and arm64"
#endif

/* What a program on a perf event is given: struct bpf_perf_event_data of include/uapi/linux/bpf_perf_event.h. */
struct perf_sample {
	struct user_registers registers; /* where the CPU was interrupted, be it in the kernel */
	__u64 sample_period;
	__u64 addr;
};

/* The registers that the current thread has in user mode. Says false for one of the kernel, which has none. */
static __always_inline bool read_user_registers(struct user_registers *registers)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (task->flags & PF_KTHREAD || !task->mm)
		return false;
	return !bpf_probe_read_kernel(registers, sizeof(*registers), (const void *)bpf_task_pt_regs(task));
}

#endif
