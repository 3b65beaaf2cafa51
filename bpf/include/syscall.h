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
	unsigned long bx;
	unsigned long ax;
	unsigned long cx;
	unsigned long si;
	unsigned long orig_ax;
};

struct thread_info___status {
	__u32 status;
};

struct task_struct___status {
	struct thread_info___status thread_info;
};

enum {
	SYS_read = 0,
	SYS_readv = 19,
	SYS_recvfrom = 45,
	SYS_recvmsg = 47,
	SYS_splice = 275,
	SYS_preadv2 = 327,
};

/* Of 32-bit programs: arch/x86/entry/syscalls/syscall_32.tbl. */
enum {
	SYS32_read = 3,
	SYS32_socketcall = 102,
	SYS32_readv = 145,
	SYS32_splice = 313,
	SYS32_recvfrom = 371,
	SYS32_recvmsg = 372,
	SYS32_preadv2 = 378,
};

#define TS_COMPAT 0x0002 /* of thread_info.status: arch/x86/include/asm/thread_info.h */
#define ENOSYS	  38

#elif defined(__TARGET_ARCH_arm64)

struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

struct pt_regs {
	struct user_pt_regs user_regs;
	__u64 orig_x0;
	__s32 syscallno;
};

enum {
	SYS_read = 63,
	SYS_readv = 65,
	SYS_splice = 76,
	SYS_recvfrom = 207,
	SYS_recvmsg = 212,
	SYS_preadv2 = 286,
};

/* Of 32-bit programs: arch/arm64/tools/syscall_32.tbl. */
enum {
	SYS32_read = 3,
	SYS32_socketcall = 102,
	SYS32_readv = 145,
	SYS32_recvfrom = 292,
	SYS32_recvmsg = 297,
	SYS32_splice = 340,
	SYS32_preadv2 = 392,
};

#define SYSCALL_PSR_MODE32_BIT 0x10

#else
#error "syscall.h knows amd64 and arm64"
#endif

#pragma clang attribute pop

/* The first argument of socketcall: include/uapi/linux/net.h. Its second has the arguments of the call. */
enum {
	SYS32_SOCKETCALL_RECV = 10,
	SYS32_SOCKETCALL_RECVFROM = 12,
	SYS32_SOCKETCALL_RECVMSG = 17,
};

/* Where a call that receives puts what it received. */
struct syscall_buffer {
	const void *base;	   /* one buffer, or NULL */
	const struct iovec *iovec; /* several, in the memory of the process, or NULL */
	bool narrow;		   /* iovec is that of a 32-bit program: struct narrow_iovec */
};

/* struct user_msghdr of include/linux/socket.h, as a process has it in its memory. */
struct syscall_msghdr {
	void *msg_name;
	int msg_namelen;
	const struct iovec *msg_iov;
	size_t msg_iovlen;
};

/* struct compat_iovec of include/linux/compat.h. */
struct narrow_iovec {
	__u32 iov_base;
	__u32 iov_len;
};

/* struct compat_msghdr of include/net/compat.h. */
struct narrow_msghdr {
	__u32 msg_name;
	__u32 msg_namelen;
	__u32 msg_iov;
	__u32 msg_iovlen;
};

/* The system call that the current task is in. */
struct syscall {
	long number;
	__u64 first, second; /* arguments */
	bool narrow;	     /* of a 32-bit program */
};

/*
 * Says false where the task is in none: on its way back from one, where io_uring does what waited, its registers are
 * still those of the call.
 */
static __always_inline bool current_syscall(struct syscall *call)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *registers = (struct pt_regs *)bpf_task_pt_regs(task);

#if defined(__TARGET_ARCH_x86)
	if ((int)registers->ax != -ENOSYS) /* so it is until the call has a result */
		return false;
	call->number = registers->orig_ax;
	call->narrow = ((struct task_struct___status *)task)->thread_info.status & TS_COMPAT;
	call->first = call->narrow ? (__u32)registers->bx : 0; /* nobody needs it otherwise */
	call->second = call->narrow ? (__u32)registers->cx : registers->si;
#else
	if (registers->user_regs.regs[0] != registers->orig_x0) /* the result takes the place of the first argument */
		return false;
	call->number = registers->syscallno;
	call->narrow = registers->user_regs.pstate & SYSCALL_PSR_MODE32_BIT;
	call->first = registers->user_regs.regs[0];
	call->second = registers->user_regs.regs[1];
#endif
	return true;
}

/* Whether it is a call of which syscall_receive_buffer finds the buffer. */
static __always_inline bool syscall_receives(const struct syscall *call)
{
	if (call->narrow) {
		switch (call->number) {
		case SYS32_socketcall:
			return call->first == SYS32_SOCKETCALL_RECV || call->first == SYS32_SOCKETCALL_RECVFROM ||
			       call->first == SYS32_SOCKETCALL_RECVMSG;
		case SYS32_read:
		case SYS32_readv:
		case SYS32_recvfrom:
		case SYS32_recvmsg:
		case SYS32_preadv2:
			return true;
		}
		return false;
	}
	switch (call->number) {
	case SYS_read:
	case SYS_readv:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_preadv2:
		return true;
	}
	return false;
}

/* The same for a 32-bit program. */
static __always_inline bool narrow_receive_buffer(const struct syscall *call, struct syscall_buffer *buffer)
{
	bool segments = call->number == SYS32_readv || call->number == SYS32_preadv2;
	bool message = call->number == SYS32_recvmsg;
	__u32 second = call->second;

	if (call->number == SYS32_socketcall) {
		message = call->first == SYS32_SOCKETCALL_RECVMSG;
		if (bpf_probe_read_user(&second, sizeof(second), (const void *)(call->second + sizeof(second))))
			return false;
	}
	if (message &&
	    bpf_probe_read_user(&second, sizeof(second),
				(const void *)(__u64)second + __builtin_offsetof(struct narrow_msghdr, msg_iov)))
		return false;
	if (segments || message)
		buffer->iovec = (const void *)(__u64)second;
	else
		buffer->base = (const void *)(__u64)second;
	return true;
}

/*
 * Finds the buffers of read, recvfrom, readv, preadv2 and recvmsg (recv is recvfrom). Says false in any other call;
 * then nobody says where bytes are put.
 */
static __always_inline bool syscall_receive_buffer(struct syscall_buffer *buffer)
{
	struct syscall call;

	buffer->base = NULL;
	buffer->iovec = NULL;
	if (!current_syscall(&call) || !syscall_receives(&call))
		return false;
	buffer->narrow = call.narrow;
	if (call.narrow)
		return narrow_receive_buffer(&call, buffer);
	switch (call.number) {
	case SYS_readv:
	case SYS_preadv2:
		buffer->iovec = (const void *)call.second;
		return true;
	case SYS_recvmsg:
		return !bpf_probe_read_user(&buffer->iovec, sizeof(buffer->iovec),
					    (const void *)call.second +
						    __builtin_offsetof(struct syscall_msghdr, msg_iov));
	}
	buffer->base = (const void *)call.second;
	return true;
}

#endif
