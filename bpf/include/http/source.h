/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* The bytes of a call that sends or receives, where the process has them in its memory, in up to many segments. */
#ifndef EBPFRECEIVER_HTTP_SOURCE_H
#define EBPFRECEIVER_HTTP_SOURCE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/message.h"
#include "syscall.h"

#define MAX_SEGMENTS  16 /* of a call that are looked at for a head, and of one that receives for its end */
#define TAIL_SEGMENTS 8	 /* of a call that sends, at its end */

/* The bytes of a call, in the memory of the process. */
struct source {
	const void *base; /* the first segment; what of it was moved before is left out */
	__u64 size;
	const struct iovec *more; /* the segments after it, or NULL */
	bool more_in_kernel;	  /* the kernel has copied the list of segments */
	bool copied;		  /* base is a copy of the program's own */
	bool narrow;		  /* more is that of a 32-bit program */
	bool nowhere;		  /* no process has them in its memory: size is 0 */
	__u32 more_count;	  /* of more, where the kernel has copied it */

	/*
	 * What a function works with that walks over the segments. Here and not in its own variables, because the
	 * verifier does not follow the values in memory that it was given, and so not each way to each of them.
	 */
	__u32 have;
	__u64 tail; /* copied: what is known of it from the beginning */
	/* For one that is read from front to back: */
	__u32 index; /* of the segment of more that comes next */
	__u64 begin; /* the place of base in the call */
};

static __always_inline long read_source(const struct source *source, void *to, __u32 size, const void *from)
{
	return source->copied ? bpf_probe_read_kernel(to, size, from) : bpf_probe_read_user(to, size, from);
}

/* Reads the entry of source->more at an index. */
static __always_inline bool read_segment(struct source *source, __u32 index, struct iovec *segment)
{
	if (source->more_in_kernel)
		return index < source->more_count &&
		       !bpf_probe_read_kernel(segment, sizeof(*segment), source->more + index);
	if (source->narrow) {
		struct narrow_iovec narrow;

		if (bpf_probe_read_user(&narrow, sizeof(narrow), (const struct narrow_iovec *)source->more + index))
			return false;
		segment->iov_base = (void *)(__u64)narrow.iov_base;
		segment->iov_len = narrow.iov_len;
		return true;
	}
	return !bpf_probe_read_user(segment, sizeof(*segment), source->more + index);
}

/*
 * The functions that walk over segments are not inlined and not static: the verifier then looks at each of them once,
 * and not again for all that may have gone before.
 */

/* Reads the first eight bytes of a call, or all of one that has fewer. Returns how many; 0: they cannot be read. */
__noinline __u32 first_bytes(struct source *source, __u32 length, __u64 *first)
{
	__u32 wanted = length < sizeof(*first) ? length : sizeof(*first);
	const void *base;
	__u64 size;

	if (!source || !first)
		return 0;
	base = source->base;
	size = source->size;
	if (wanted == sizeof(*first) && size >= sizeof(*first))
		return read_source(source, first, sizeof(*first), base) ? 0 : sizeof(*first);
	*first = 0;
	source->have = 0;
	for (__u32 segment = 0; segment < MAX_SEGMENTS; segment++) {
		__u32 have = source->have & 7;
		__u32 part = (wanted - have < size ? wanted - have : size) & 7;
		struct iovec next;

		if (part) {
			__u64 bytes = 0;

			if (read_source(source, &bytes, part, base))
				return 0;
			*first |= bytes << have * 8;
			source->have += part;
		}
		if (source->have >= wanted || !source->more)
			break;
		if (!read_segment(source, segment, &next))
			break;
		base = next.iov_base;
		size = next.iov_len;
	}
	return source->have == wanted ? wanted : 0;
}

/* Copies the first bytes of a call: up to length of them, after those that are there already. Returns where they end.
 */
__noinline __u32 capture(struct source *source, struct captured_message *captured, __u32 have, __u32 length)
{
	const void *base;
	__u64 size;

	if (!source || !captured)
		return 0;
	base = source->base;
	size = source->size;
	for (__u32 segment = 0; segment < MAX_SEGMENTS && have < length; segment++) {
		struct iovec next;
		__u32 at = have;
		__u32 part = length - have;

		if (part > size)
			part = size;
		if (part) {
			/* Bounds that the compiler cannot see through and the verifier can. */
			part -= 1;
			asm volatile("%0 &= %2\n\t%1 &= %2" : "+r"(part), "+r"(at) : "i"(MAX_HEAD_BYTES - 1));
			part += 1;
			if (read_source(source, captured->data + at, part, base))
				break;
			have += part;
		}
		if (have >= length || !source->more)
			break;
		if (!read_segment(source, segment, &next))
			break;
		base = next.iov_base;
		size = next.iov_len;
	}
	return have;
}

/* Appends bytes to the tail: the last eight bytes, in the order of the stream from the lowest. */
static __always_inline void append(struct source *source, const void *base, __u64 size)
{
	__u32 few = size & 7;
	__u64 bytes = 0;

	if (size >= sizeof(bytes)) {
		if (bpf_probe_read_user(&bytes, sizeof(bytes), base + size - sizeof(bytes)))
			bytes = 0;
		source->tail = bytes;
	} else if (few) {
		if (bpf_probe_read_user(&bytes, few, base))
			source->tail = 0;
		else
			source->tail = source->tail >> few * 8 | bytes << (8 - few) * 8;
	}
}

/* What message.tail has of a call of length bytes. */
static __always_inline __u64 tail_of(__u64 tail, __u32 length)
{
	return length < sizeof(tail) ? tail >> (8 - (length & 7)) * 8 : tail;
}

/* The tail of a call that sends all that it has left, length bytes. */
__noinline __u64 tail_sent(struct source *source, __u32 length)
{
	__u32 skipped = 0;

	if (!source || !length || source->copied)
		return 0;
	source->tail = 0;
	source->have = 0;
	if (source->more_count < TAIL_SEGMENTS) {
		append(source, source->base, source->size);
		source->have = source->size < sizeof(source->tail) ? source->size : sizeof(source->tail);
	} else {
		skipped = source->more_count - TAIL_SEGMENTS;
	}
	for (__u32 segment = 0; segment < TAIL_SEGMENTS && segment < source->more_count; segment++) {
		struct iovec next;

		if (!read_segment(source, skipped + segment, &next))
			return 0;
		append(source, next.iov_base, next.iov_len);
		source->have += next.iov_len < sizeof(source->tail) ? next.iov_len : sizeof(source->tail);
	}
	if (source->have < sizeof(source->tail) && source->have < length)
		return 0;
	return tail_of(source->tail, length);
}

/* The tail of a call that has received length bytes. */
__noinline __u64 tail_received(struct source *source, __u32 length)
{
	const void *base;
	__u64 size;

	if (!source || !length)
		return 0;
	base = source->base;
	size = source->size;
	source->tail = 0;
	source->have = 0;
	for (__u32 segment = 0; segment < MAX_SEGMENTS; segment++) {
		__u32 left = length - source->have;
		struct iovec next;

		if (size > left)
			size = left;
		source->have += size;
		if (left - size < sizeof(source->tail))
			append(source, base, size);
		if (source->have >= length)
			return tail_of(source->tail, length);
		if (!source->more || !read_segment(source, segment, &next))
			break;
		base = next.iov_base;
		size = next.iov_len;
	}
	return 0;
}

#endif
