/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* Which first bytes are those of HTTP: of a message of HTTP/1, or of frames of HTTP/2. */
#ifndef EBPFRECEIVER_HTTP_RECOGNIZE_H
#define EBPFRECEIVER_HTTP_RECOGNIZE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define WORD(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)

static __always_inline bool begins_target(__u8 byte)
{
	return byte == '/' || byte == 'h' || byte == 'H' || byte == '*';
}

/* Whether these are the first eight bytes of an HTTP/1 message, or of a connection of HTTP/2. */
static __always_inline bool looks_like_head(__u64 first)
{
	__u32 rest = first >> 32;

	switch ((__u32)first) {
	case WORD('H', 'T', 'T', 'P'):
		return (rest & 0xffffff) == WORD('/', '1', '.', 0);
	case WORD('G', 'E', 'T', ' '):
	case WORD('P', 'U', 'T', ' '):
		return begins_target(rest);
	case WORD('P', 'O', 'S', 'T'):
	case WORD('H', 'E', 'A', 'D'):
		return (__u8)rest == ' ' && begins_target(rest >> 8);
	case WORD('P', 'A', 'T', 'C'):
		return (rest & 0xffff) == WORD('H', ' ', 0, 0) && begins_target(rest >> 16);
	case WORD('T', 'R', 'A', 'C'):
		return (rest & 0xffff) == WORD('E', ' ', 0, 0) && begins_target(rest >> 16);
	case WORD('D', 'E', 'L', 'E'):
		return (rest & 0xffffff) == WORD('T', 'E', ' ', 0) && begins_target(rest >> 24);
	case WORD('O', 'P', 'T', 'I'):
		return rest == WORD('O', 'N', 'S', ' ');
	case WORD('C', 'O', 'N', 'N'):
		return rest == WORD('E', 'C', 'T', ' ');
	case WORD('P', 'R', 'I', ' '):
		return rest == WORD('*', ' ', 'H', 'T');
	}
	return false;
}

/* Whether these are the first eight bytes of what a client of HTTP/2 begins with (RFC 9113 section 3.4). */
static __always_inline bool looks_like_preface(__u64 first)
{
	return first == ((__u64)WORD('*', ' ', 'H', 'T') << 32 | WORD('P', 'R', 'I', ' '));
}

/* Whether a pattern of a size begins with these bytes, fewer than eight, or they with it. */
static __always_inline bool agrees(__u64 bytes, __u32 count, __u64 pattern, __u32 size)
{
	__u32 compared = count < size ? count : size;

	return !((bytes ^ pattern) & ((1ULL << (compared & 7) * 8) - 1));
}

#define TEXT(a, b, c, d, e, f, g) ((__u64)WORD(e, f, g, 0) << 32 | WORD(a, b, c, d))

/* Whether these bytes, fewer than eight, may go on as looks_like_head asks for. */
static __always_inline bool may_begin_head(__u64 bytes, __u32 count)
{
	switch ((__u8)bytes) {
	case 'H':
		return agrees(bytes, count, TEXT('H', 'T', 'T', 'P', '/', '1', '.'), 7) ||
		       agrees(bytes, count, TEXT('H', 'E', 'A', 'D', ' ', 0, 0), 5);
	case 'G':
		return agrees(bytes, count, TEXT('G', 'E', 'T', ' ', 0, 0, 0), 4);
	case 'P':
		return agrees(bytes, count, TEXT('P', 'O', 'S', 'T', ' ', 0, 0), 5) ||
		       agrees(bytes, count, TEXT('P', 'U', 'T', ' ', 0, 0, 0), 4) ||
		       agrees(bytes, count, TEXT('P', 'A', 'T', 'C', 'H', ' ', 0), 6) ||
		       agrees(bytes, count, TEXT('P', 'R', 'I', ' ', '*', ' ', 'H'), 7);
	case 'D':
		return agrees(bytes, count, TEXT('D', 'E', 'L', 'E', 'T', 'E', ' '), 7);
	case 'O':
		return agrees(bytes, count, TEXT('O', 'P', 'T', 'I', 'O', 'N', 'S'), 7);
	case 'C':
		return agrees(bytes, count, TEXT('C', 'O', 'N', 'N', 'E', 'C', 'T'), 7);
	case 'T':
		return agrees(bytes, count, TEXT('T', 'R', 'A', 'C', 'E', ' ', 0), 6);
	}
	return false;
}

#endif
