/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* HTTP/1: sends on the heads of messages, and where all other bytes are. */
#ifndef EBPFRECEIVER_HTTP_HTTP1_H
#define EBPFRECEIVER_HTTP_HTTP1_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/frames.h"
#include "http/message.h"
#include "http/recognize.h"
#include "http/source.h"
#include "http/stream.h"

/* How much of a message is copied at most, for its head. */
const volatile __u32 head_bytes = 512;

/*
 * Sends a call's first bytes, in which a head begins or goes on. Of a call that is not ending, no more is told than
 * what was captured, and that there is more.
 */
static __always_inline void report_bytes(void *ctx, struct carrier *carrier, struct source *source, __u8 kind,
					 __u8 direction, __u32 offset, __u32 length, __u32 prefix_length, __u32 limit,
					 bool ending, __u64 tail)
{
	struct http_socket *socket = carrier->socket;
	__u32 which = carrier->scratch;
	struct captured_message *captured = bpf_map_lookup_elem(&scratch, &which);
	__u32 wanted = length < limit ? length : limit;
	__u32 have = 0;
	__u32 end;

	if (!captured)
		return;
	if (prefix_length) {
		*(__u64 *)captured->data = socket->prefix[direction];
		have = prefix_length;
	}
	have = capture(source, captured, have, wanted);
	asm volatile("%0 &= %1"
		     : "+r"(have)
		     : "i"(2 * MAX_HEAD_BYTES - 1)); /* for the verifier: it is no more than limit */

	/* A head that ends here is whole. One that does not may go on in the next call, unless this has its body. */
	socket->capture_left[direction] = 0;
	end = (have - 4) & (MAX_HEAD_BYTES - 1);
	if (have < length) {
		if (!ending)
			length = have + 1;
	} else if (have < limit && !(have >= 4 && *(__u32 *)(captured->data + end) == WORD('\r', '\n', '\r', '\n'))) {
		socket->capture_left[direction] = limit - have;
	}
	if (direction == MESSAGE_SENT)
		socket->told = offset + length;
	fill(&captured->message, carrier, kind, direction, offset, length);
	captured->message.tail = tail;
	captured->message.captured = have;
	report_captured(ctx, carrier, captured);
}

/*
 * Whether a head begins with this call, or with up to seven bytes of the calls right before it. These are prefix_length
 * then, and also where all of it together may still become a head. few are the first bytes of the call, all of it where
 * they are fewer than eight; begun has them, and then the first ones of the head.
 */
static __always_inline bool begins_head(struct http_socket *socket, __u8 direction, __u32 offset, __u64 *begun,
					__u32 few, __u32 *prefix_length)
{
	__u64 first = *begun;
	__u32 kept = socket->prefix_length[direction] & 7;

	socket->prefix_length[direction] = 0;
	if (kept && few && socket->prefix_end[direction] == offset) {
		__u64 whole = socket->prefix[direction] | first << kept * 8;

		if (kept + few >= sizeof(whole)) {
			if (looks_like_head(whole)) {
				*begun = whole;
				*prefix_length = kept;
				return true;
			}
		} else if (may_begin_head(whole, kept + few)) {
			*prefix_length = kept;
			first = whole;
			offset -= kept;
			few += kept;
		}
	}
	if (few == sizeof(first) && looks_like_head(first))
		return true;
	if (few && few < sizeof(first) && may_begin_head(first, few)) {
		socket->prefix[direction] = first;
		socket->prefix_length[direction] = few;
		socket->prefix_end[direction] = offset + few;
	}
	return false;
}

/* A call of HTTP/1, or one in which a connection of HTTP begins. Says false if it is not worth remembering. */
static __always_inline bool follow(void *ctx, struct carrier *carrier, struct source *source, __u8 direction,
				   __u32 offset, __u32 length, bool ending, __u64 first, __u32 few)
{
	struct http_socket *socket = carrier->socket;
	__u32 prefix_length = 0;
	bool head = false;
	__u64 tail = 0;

	if (begins_head(socket, direction, offset, &first, few, &prefix_length)) {
		if (looks_like_preface(first)) {
			begin_frames(carrier, direction, offset - prefix_length, prefix_length);
			follow_frames(ctx, carrier, source, direction, offset, length);
			return true;
		}
		socket->protocol = PROTOCOL_HTTP1;
		head = true;
	}
	if (!socket->protocol) {
		if (direction == MESSAGE_SENT)
			socket->told = offset + length;
		return socket->prefix_length[MESSAGE_SENT] || socket->prefix_length[MESSAGE_RECEIVED];
	}
	if (!head && !ending && !socket->capture_left[direction])
		return true;
	if (direction == MESSAGE_SENT) {
		if (offset != socket->told) /* these went with segments that were not told of one by one */
			report_place(ctx, carrier, direction, socket->told, offset - socket->told, 0, false);
		socket->told = offset + length;
	}
	if (ending)
		tail = direction == MESSAGE_SENT ? tail_sent(source, length) : tail_received(source, length);
	if (head)
		report_bytes(ctx, carrier, source, MESSAGE_HEAD, direction, offset - prefix_length,
			     length + prefix_length, prefix_length, head_bytes, ending, tail);
	else if (socket->capture_left[direction])
		report_bytes(ctx, carrier, source, MESSAGE_DATA, direction, offset - prefix_length,
			     length + prefix_length, prefix_length, socket->capture_left[direction], ending, tail);
	else
		report_place(ctx, carrier, direction, offset - prefix_length, length + prefix_length,
			     prefix_length ? socket->prefix[direction] : tail, !few && source->size);
	return true;
}

#endif
