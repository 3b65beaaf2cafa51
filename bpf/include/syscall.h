/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* The system call that the current task is in: its number and arguments, from the registers saved at its entry. */
#ifndef EBPFRECEIVER_SYSCALL_H
#define EBPFRECEIVER_SYSCALL_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)

struct pt_regs {
	unsigned long si;
	unsigned long orig_ax;
	__u16 cs;
};

enum {
	SYS_read = 0,
	SYS_readv = 19,
	SYS_recvfrom = 45,
	SYS_recvmsg = 47,
};

#define SYSCALL_USER32_CS 0x23

#elif defined(__TARGET_ARCH_arm64)

struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

struct pt_regs {
	struct user_pt_regs user_regs;
	__s32 syscallno;
};

enum {
	SYS_read = 63,
	SYS_readv = 65,
	SYS_recvfrom = 207,
	SYS_recvmsg = 212,
};

#define SYSCALL_PSR_MODE32_BIT 0x10

#else
#error "syscall.h knows amd64 and arm64"
#endif

#pragma clang attribute pop

/* Where a call that receives puts what it received. */
struct syscall_buffer {
	const void *base;	   /* one buffer, or NULL */
	const struct iovec *iovec; /* several, in the memory of the process, or NULL */
};

/* struct user_msghdr of include/linux/socket.h, as a process has it in its memory. */
struct syscall_msghdr {
	void *msg_name;
	int msg_namelen;
	const struct iovec *msg_iov;
	size_t msg_iovlen;
};

static __always_inline bool syscall_registers(struct pt_regs *registers, long *number, const void **second)
{
#if defined(__TARGET_ARCH_x86)
	if (registers->cs == SYSCALL_USER32_CS)
		return false;
	*number = registers->orig_ax;
	*second = (const void *)registers->si;
#else
	if (registers->user_regs.pstate & SYSCALL_PSR_MODE32_BIT)
		return false;
	*number = registers->syscallno;
	*second = (const void *)registers->user_regs.regs[1];
#endif
	return true;
}

/* Finds the buffers of read, recvfrom, readv and recvmsg; says false in any other call and in 32-bit processes. */
static __always_inline bool syscall_receive_buffer(struct syscall_buffer *buffer)
{
	struct pt_regs *registers = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	const void *second;
	long number;

	buffer->base = NULL;
	buffer->iovec = NULL;
	if (!syscall_registers(registers, &number, &second))
		return false;
	switch (number) {
	case SYS_read:
	case SYS_recvfrom:
		buffer->base = second;
		return true;
	case SYS_readv:
		buffer->iovec = second;
		return true;
	case SYS_recvmsg:
		return !bpf_probe_read_user(&buffer->iovec, sizeof(buffer->iovec),
					    second + __builtin_offsetof(struct syscall_msghdr, msg_iov));
	}
	return false;
}

#endif
