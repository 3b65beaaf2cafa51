/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Walks the stack of the current thread in user mode, from the innermost frame out.
 *
 *   table              the CFA and what is saved beside it, by the row of the address
 *   Go                 frame pointers as they are: the stack changes in the middle (systemstack), and never loops
 *   frame pointer      where there is no row: code that was made at run time, or hand-written. Each is checked: it has
 *                      to lie above the stack pointer, not far away, and its return address has to be in code
 *
 * A walk that does not reach the end of the stack says why.
 */
#ifndef EBPFRECEIVER_CPU_WALK_H
#define EBPFRECEIVER_CPU_WALK_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "cpu/event.h"
#include "cpu/process.h"
#include "cpu/registers.h"
#include "cpu/table.h"

/* How a walk ended. Go reads the names from the generated constants. */
enum walk_end {
	WALK_COMPLETE,		/* the outermost frame was reached, or there is no stack in user mode */
	WALK_TRUNCATED,		/* more frames than are kept */
	WALK_UNKNOWN_PROCESS,	/* user space has not looked into the process yet */
	WALK_TABLE_PENDING,	/* a table was not there yet, and frame pointers led nowhere */
	WALK_NO_MAPPING,	/* an address that is in no code that is known */
	WALK_UNSUPPORTED,	/* a rule that no row can express */
	WALK_UNREADABLE,	/* memory of the stack cannot be read: it is not present, or the walk has gone astray */
	WALK_FRAME_POINTER,	/* a frame pointer that leads nowhere, in code without a table */
	WALK_FRAME_POINTER_END, /* one that is zero there: the outermost frame, or a register that was used otherwise */
	WALK_SPECIAL,		/* a page of the kernel's that no stack leads through */
	WALK_NARROW,		/* a 32-bit program */
	WALK_ENDS,
};

const enum walk_end *keep_walk_end __attribute__((unused));

/* How far from the stack pointer a frame pointer may lie where it is only believed if it is plausible. */
#define FRAME_BYTES_MAX (1 << 20)

#define CACHED_ROWS 512 /* a power of two */

/* A row that was found before: most frames are those of the samples before. */
struct cached_row {
	__u64 address;
	__u32 owner; /* of the mapping: what was found by what is not true any more has another */
	__u32 reserved;
	struct row row;
};

struct walk {
	__u64 instruction; /* where the frame is, or the address that its call returns to */
	__u64 stack;
	__u64 frame_pointer;
	__u64 link;
	__u64 hash;
	__u32 frames;	      /* so many addresses */
	__u32 limit;	      /* how many there may be */
	__u8 end;	      /* enum walk_end */
	__u8 returns;	      /* instruction is what a call returns to */
	__u8 registers_known; /* this frame's are those of struct user_registers */
	__u8 guessed;	      /* by a frame pointer that was only plausible */
	__u8 has_process;
	__u8 has_mapping;
	__u8 pending;		/* a table was missing on the way */
	__u8 misses;		/* an address was in no mapping: user space has to look again */
	__u8 changed;		/* something was mapped or unmapped: user space has to look again some time */
	struct mapping mapping; /* of the frame before: the next is often in the same */
	struct process process;
	struct user_registers registers;
	struct cached_row rows[CACHED_ROWS];
	struct stack_event event; /* with the addresses */
};

static __always_inline __u64 mix(__u64 hash, __u64 value)
{
	hash ^= value;
	hash *= 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

static __always_inline void add_address(struct walk *walk, __u64 address)
{
	walk->event.addresses[walk->frames & (ALL_FRAMES - 1)] = address;
	walk->frames++;
	walk->hash = mix(walk->hash, address);
}

static __always_inline bool read_word(__u64 address, __u64 *word)
{
	return !bpf_probe_read_user(word, sizeof(*word), (const void *)address);
}

/* Walks of the callers go on while these say 0, and end with 1. */

static __always_inline long end_walk(struct walk *walk, enum walk_end end)
{
	walk->end = end;
	return 1;
}

static __always_inline long step_by_frame_pointer(struct walk *walk, bool trusted)
{
	__u64 frame[2]; /* the caller's frame pointer, the return address */
	__u64 at = walk->frame_pointer;

	if (!at)
		return end_walk(walk, trusted ? WALK_COMPLETE : WALK_FRAME_POINTER_END);
	if (!trusted && (at & 7 || at < walk->stack || at - walk->stack > FRAME_BYTES_MAX))
		return end_walk(walk, WALK_FRAME_POINTER);
	if (bpf_probe_read_user(frame, sizeof(frame), (const void *)at))
		return end_walk(walk, trusted ? WALK_UNREADABLE : WALK_FRAME_POINTER);
	walk->stack = at + sizeof(frame);
	walk->frame_pointer = frame[0];
	walk->instruction = frame[1] & ADDRESS_BITS;
	walk->returns = true;
	walk->registers_known = false;
	walk->guessed = !trusted;
	if (!walk->instruction)
		return end_walk(walk, trusted ? WALK_COMPLETE : WALK_FRAME_POINTER_END);
	return 0;
}

/* The frame that a signal handler returns to: the kernel has saved all registers in it. */
static __always_inline long step_over_signal(struct walk *walk)
{
#if defined(__TARGET_ARCH_x86)
	/*
	 * struct ucontext of include/uapi/asm-generic/ucontext.h at the stack pointer, in it struct sigcontext_64 of
	 * arch/x86/include/uapi/asm/sigcontext.h from 40 on: r8-r15, di, si, bp, bx, dx, ax, cx, sp, ip.
	 */
	__u64 saved[17];

	if (bpf_probe_read_user(saved, sizeof(saved), (const void *)(walk->stack + 40)))
		return end_walk(walk, WALK_UNREADABLE);
	walk->frame_pointer = saved[10];
	walk->stack = saved[15];
	walk->instruction = saved[16];
#else
	/*
	 * struct rt_sigframe of arch/arm64/kernel/signal.c: siginfo of 128 bytes, struct ucontext, in it struct
	 * sigcontext after 176 bytes: fault_address, regs[31], sp, pc.
	 */
	__u64 saved[5]; /* x29, x30, sp, pc */

	if (bpf_probe_read_user(saved, 4 * sizeof(saved[0]), (const void *)(walk->stack + 128 + 176 + 8 + 29 * 8)))
		return end_walk(walk, WALK_UNREADABLE);
	walk->frame_pointer = saved[0];
	walk->link = saved[1];
	walk->stack = saved[2];
	walk->instruction = saved[3];
#endif
	walk->returns = false;
	walk->registers_known = false;
	walk->guessed = false;
	return 0;
}

/* Where the frame begins: the value of the stack pointer in the caller. */
static __always_inline bool find_cfa(struct walk *walk, const struct row *row, __u64 *cfa)
{
	__s64 offset = (__s64)row->offset * 8;

	if (row->rule & RULE_REGISTER) {
		if (!walk->registers_known)
			return false;
		*cfa = dwarf_register(&walk->registers, row->rule & RULE_CFA_MASK) + offset;
		return true;
	}
	switch (row->rule & RULE_CFA_MASK) {
	case RULE_PLT:
		*cfa = walk->stack + 8 + ((__s64)(walk->instruction & 15) >= row->offset ? 8 : 0);
		return true;
	case RULE_STACK:
		*cfa = walk->stack + offset;
		return true;
	case RULE_FRAME:
		*cfa = walk->frame_pointer + offset;
		return true;
	case RULE_STACK_DEREF:
		return read_word(walk->stack + offset, cfa);
	case RULE_STACK_DEREF_WORD:
		if (!read_word(walk->stack + offset, cfa))
			return false;
		*cfa += 8;
		return true;
	case RULE_FRAME_DEREF:
		return read_word(walk->frame_pointer + offset, cfa);
	case RULE_FRAME_DEREF_WORD:
		if (!read_word(walk->frame_pointer + offset, cfa))
			return false;
		*cfa += 8;
		return true;
	}
	return false;
}

/* Reads what the row says is saved below the CFA. */
static __always_inline bool restore(struct walk *walk, const struct row *row, __u64 cfa)
{
	__u64 saved = cfa + (__s64)row->frame_pointer * 8;
	__u64 pair[2];

	switch (row->rule & (RULE_REGISTER | RULE_RETURN_MASK)) {
#if defined(__TARGET_ARCH_arm64)
	case RULE_RETURN_LINK:
		if (walk->returns) /* only the innermost frame's link register is known */
			return false;
		walk->instruction = walk->link;
		break;
	case RULE_RETURN_BESIDE:
		if (bpf_probe_read_user(pair, sizeof(pair), (const void *)saved))
			return false;
		walk->frame_pointer = pair[0];
		walk->instruction = pair[1];
		return true;
	case RULE_RETURN_ALONE:
		return read_word(saved, &walk->instruction);
#endif
	default:
		if (row->frame_pointer == -2) { /* beside it, so that one look is enough */
			if (bpf_probe_read_user(pair, sizeof(pair), (const void *)saved))
				return false;
			walk->frame_pointer = pair[0];
			walk->instruction = pair[1];
			return true;
		}
		if (!read_word(cfa - 8, &walk->instruction))
			return false;
	}
	if (row->frame_pointer == FRAME_POINTER_KEPT)
		return true;
	if (row->frame_pointer == FRAME_POINTER_AT_ITSELF)
		saved = walk->frame_pointer;
	return read_word(saved, &walk->frame_pointer);
}

static __always_inline long step_by_row(struct walk *walk, const struct row *row)
{
	__u64 cfa;

	switch (row->rule) {
	case RULE_NONE:
		return step_by_frame_pointer(walk, false);
	case RULE_END:
		return end_walk(walk, WALK_COMPLETE);
	case RULE_UNSUPPORTED:
		return end_walk(walk, WALK_UNSUPPORTED);
	case RULE_SIGNAL:
		return step_over_signal(walk);
	case RULE_GO:
		return step_by_frame_pointer(walk, true);
	}
	if (row->rule & RULE_REGISTER && !walk->registers_known)
		return end_walk(walk, WALK_UNSUPPORTED);
	if (!find_cfa(walk, row, &cfa) || !restore(walk, row, cfa))
		return end_walk(walk, WALK_UNREADABLE);
	walk->instruction &= ADDRESS_BITS;
	walk->stack = cfa;
	walk->returns = true;
	walk->registers_known = false;
	walk->guessed = false;
	if (!walk->instruction)
		return end_walk(walk, WALK_COMPLETE);
	return 0;
}

static long walk_frame(__u32 number, struct walk **context)
{
	struct walk *walk = *context;
	__u64 address = walk->instruction - (walk->returns ? 1 : 0); /* in the call, not behind it */
	struct cached_row *cached;
	struct row row;

	if (walk->frames >= walk->limit)
		return end_walk(walk, WALK_TRUNCATED);
	if (!walk->has_mapping || address < walk->mapping.start || address >= walk->mapping.end)
		walk->has_mapping = walk->has_process && find_mapping(&walk->process, address, &walk->mapping);
	if (!walk->has_mapping && walk->has_process) {
		walk->misses = true;
		if (walk->guessed) /* it was no return address */
			return end_walk(walk, WALK_FRAME_POINTER);
	}
	add_address(walk, address);
	if (!walk->has_mapping) {
		long ended = step_by_frame_pointer(walk, false);

		if (ended && walk->has_process)
			walk->end = WALK_NO_MAPPING;
		return ended;
	}
	switch (walk->mapping.kind) {
	case MAPPING_TABLE:
		cached = &walk->rows[(address ^ address >> 9) & (CACHED_ROWS - 1)];
		if (cached->address != address || cached->owner != walk->mapping.owner) {
			if (!find_row(&walk->mapping, address - walk->mapping.bias, &row))
				return step_by_frame_pointer(walk, false);
			cached->address = address;
			cached->owner = walk->mapping.owner;
			cached->row = row;
		}
		return step_by_row(walk, &cached->row);
	case MAPPING_SPECIAL:
		return end_walk(walk, WALK_SPECIAL);
	case MAPPING_PENDING:
		walk->pending = true;
	}
	return step_by_frame_pointer(walk, false);
}

/* Walks from the registers that the thread has in user mode. */
static __always_inline void walk_user(struct walk *walk)
{
	walk->instruction = instruction_of(&walk->registers);
	walk->stack = stack_of(&walk->registers);
	walk->frame_pointer = frame_pointer_of(&walk->registers);
	walk->link = link_of(&walk->registers);
	walk->limit = walk->frames + USER_FRAMES;
	walk->returns = false;
	walk->registers_known = true;
	walk->guessed = false;
	walk->has_mapping = false;
	walk->pending = false;
	walk->end = WALK_COMPLETE;
	if (of_narrow_program(&walk->registers)) {
		add_address(walk, walk->instruction);
		walk->end = WALK_NARROW;
		return;
	}
	bpf_loop(USER_FRAMES + 1, walk_frame, &walk, 0);
	if (walk->end == WALK_COMPLETE)
		return;
	if (!walk->has_process)
		walk->end = WALK_UNKNOWN_PROCESS;
	else if (walk->pending && walk->end != WALK_TRUNCATED)
		walk->end = WALK_TABLE_PENDING;
}

#endif
