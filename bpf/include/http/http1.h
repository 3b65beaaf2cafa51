/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* HTTP/1: sends on the heads of messages, and where all other bytes are. */
#ifndef EBPFRECEIVER_HTTP_HTTP1_H
#define EBPFRECEIVER_HTTP_HTTP1_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/frames.h"
#include "http/gen_ai.h"
#include "http/message.h"
#include "http/pipelining.h"
#include "http/recognize.h"
#include "http/source.h"
#include "http/stream.h"

#define MORE_CAPTURES 4 /* of MAX_SEGMENTS each */

/*
 * Looks at the first bytes of a call that may begin with a head. Where the connection is known to carry HTTP/1 one is
 * likely, so all that it needs is captured at once, after what came of it before: to read a process's memory twice
 * costs more than all that is decided here.
 */
static __always_inline void look_at_head(struct http_socket *socket, struct source *source, struct call *call)
{
	__u8 direction = call->message.direction & 1;
	__u32 which = call->scratch;
	struct captured_message *captured;
	__u32 before, wanted;
	bool took;

	if (source->nowhere)
		return;
	if (socket->protocol != PROTOCOL_HTTP1) {
		call->few = first_bytes(source, call->length, &call->first);
		return;
	}
	captured = bpf_map_lookup_elem(&scratch, &which);
	if (!captured)
		return;
	before = socket->prefix_length[direction] & 7;
	wanted = bytes_to_copy(socket, call) - before;
	if (wanted > call->length)
		wanted = call->length;
	if (source->size >= wanted && !source->copied && wanted) {
		__u32 part = wanted - 1;

		/* A bound that the compiler cannot see through and the verifier can. */
		asm volatile("%0 &= %1" : "+r"(part) : "i"(MAX_HEAD_BYTES - 1));
		took = !bpf_probe_read_user(captured->data + before, part + 1, source->base);
	} else {
		took = capture(source, captured, before, before + wanted) == before + wanted;
	}
	if (!took) {
		call->few = first_bytes(source, call->length, &call->first);
		return;
	}
	call->captured = wanted;
	call->captured_at = before;
	call->first = *(__u64 *)(captured->data + before);
	call->few = sizeof(call->first);
	if (wanted < sizeof(call->first)) {
		call->few = wanted;
		call->first &= (1ULL << (wanted & 7) * 8) - 1;
	}
}

/* The last bytes of a call that is ending. */
static __always_inline __u64 tail_of_call(struct source *source, struct call *call)
{
	if (!call->ending || source->nowhere)
		return 0;
	if (source->copied)
		return source->tail;
	return call->message.direction == MESSAGE_SENT ? tail_sent(source, call->length)
						       : tail_received(source, call->length);
}

/* Goes on with capture() where the bytes are in many small segments: some programs have one or two for each line. */
static __always_inline __u32 capture_more(struct source *source, struct captured_message *captured, __u32 have,
					  __u32 wanted, __u32 prefix_length)
{
	const void *base = source->base;
	__u64 size = source->size;

	source->index = 0;
	source->begin = 0;
	for (int i = 0; i < MORE_CAPTURES && have < wanted; i++) {
		__u32 took = capture_at(source, captured, have, have - prefix_length, wanted - have);

		if (!took)
			break;
		have += took;
	}
	source->base = base;
	source->size = size;
	return have;
}

/*
 * Sends a call's first bytes, in which a head begins or goes on. Of a call that is not ending, no more is told than
 * what was captured, and that there is more.
 */
static __always_inline void report_bytes(struct http_socket *socket, struct source *source, struct call *call,
					 __u8 kind, __u32 limit)
{
	__u8 direction = call->message.direction & 1;
	__u32 which = call->scratch;
	struct captured_message *captured = bpf_map_lookup_elem(&scratch, &which);
	__u32 offset = call->offset - call->prefix_length;
	__u32 length = call->length + call->prefix_length;
	__u32 wanted;
	__u64 tail = 0; /* where all of the call is captured, it is not needed */
	__u32 have = 0;
	bool answers;
	__u32 end;
	bool further;

	if (!captured)
		return;
	if (call->captured && call->captured_at != call->prefix_length)
		call->captured = 0; /* what came before is no part of it */
	if (call->prefix_length) {
		have = call->prefix_length & 7;
		if (call->captured)
			*(__u64 *)captured->data = socket->prefix[direction] | *(__u64 *)(captured->data + have)
										       << have * 8;
		else
			*(__u64 *)captured->data = socket->prefix[direction];
	}
	if (gen_ai && call->head) {
		__u32 more = model_bytes(socket, source, call, captured, have + call->captured, limit);

		if (more > limit) {
			limit = more;
			call->captured = 0;
		}
	}
	wanted = length < limit ? length : limit;
	if (call->captured && have + call->captured >= wanted) {
		have = wanted;
	} else {
		have = capture(source, captured, have, wanted);
		if (have < wanted && source->more)
			have = capture_more(source, captured, have, wanted, call->prefix_length);
	}
	if (call->head)
		note_head(socket, call, captured, have);
	if (hides_requests(socket, call, captured, have, limit)) {
		limit = MAX_HEAD_BYTES;
		wanted = length < limit ? length : limit;
		have = capture(source, captured, call->prefix_length & 7, wanted);
		if (have < wanted && source->more)
			have = capture_more(source, captured, have, wanted, call->prefix_length);
	}
	asm volatile("%0 &= %1"
		     : "+r"(have)
		     : "i"(2 * MAX_HEAD_BYTES - 1)); /* for the verifier: it is no more than limit */

	further = socket->capture_left[direction];
	/* A head that ends here is whole. One that does not may go on in the next call, unless this has its body. */
	socket->capture_left[direction] = 0;
	end = (have - 4) & (MAX_HEAD_BYTES - 1);
	answers = have > call->prefix_length && have < length && call->ending && answers_model(socket, direction);
	if (have < length) {
		if (call->ending)
			tail = tail_of_call(source, call);
		else
			length = have + 1;
	} else if (gen_ai && socket->model) {
		socket->capture_left[direction] = limit - have; /* a body goes on */
	} else if (have < limit && !(have >= 4 && *(__u32 *)(captured->data + end) == WORD('\r', '\n', '\r', '\n'))) {
		socket->capture_left[direction] = limit - have;
	}
	if (direction == MESSAGE_SENT)
		socket->told = offset + length;
	if (answers)
		length = have; /* the rest comes in a message of its own */
	captured->message = call->message;
	captured->message.kind = kind;
	captured->message.offset = offset;
	captured->message.length = length;
	captured->message.tail = answers ? 0 : tail;
	captured->message.captured = have;
	/* A goroutine serves what it receives, and asks for what it sends: who moves the answer says nothing. A
	 * request may go on with the version, in a call of its own: net/http reads the length of a preface first. */
	if (!call->head || further || (__u32)call->first != WORD('H', 'T', 'T', 'P'))
		note_goroutine(&socket->go, captured);
	report_captured(captured);
	if (answers)
		report_answer(source, call, have - call->prefix_length, tail);
}

/*
 * Finds whether a head begins with this call, or with up to seven bytes of the calls right before it: these are
 * prefix_length then, and also where all of it together may still become a head. Says whether the socket carries HTTP.
 */
static __always_inline bool recognize(struct http_socket *socket, struct call *call)
{
	__u8 direction = call->message.direction & 1;
	__u32 kept = socket->prefix_length[direction] & 7;
	__u32 offset = call->offset;
	__u64 first = call->first;
	__u32 few = call->few;

	call->head = false;
	call->prefix_length = 0;
	socket->prefix_length[direction] = 0;
	if (kept && few && socket->prefix_end[direction] == offset) {
		__u64 whole = socket->prefix[direction] | first << kept * 8;

		if (kept + few >= sizeof(whole)) {
			if (looks_like_head(whole)) {
				call->first = whole;
				call->prefix_length = kept;
				call->head = true;
			}
		} else if (may_begin_head(whole, kept + few)) {
			call->prefix_length = kept;
			first = whole;
			offset -= kept;
			few += kept;
		}
	}
	if (!call->head && few == sizeof(first) && looks_like_head(first))
		call->head = true;
	if (!call->head && few && few < sizeof(first) && may_begin_head(first, few)) {
		socket->prefix[direction] = first;
		socket->prefix_length[direction] = few;
		socket->prefix_end[direction] = offset + few;
	}
	if (call->head)
		socket->protocol = looks_like_preface(call->first) ? PROTOCOL_HTTP2 : PROTOCOL_HTTP1;
	else if (!socket->protocol && direction == MESSAGE_SENT)
		socket->told = call->offset + call->length;
	return socket->protocol != PROTOCOL_UNKNOWN;
}

/* A call on a connection of HTTP/1. */
__noinline int follow_http1(struct http_socket *socket, struct source *source, struct call *call)
{
	__u8 direction;

	if (!socket || !source || !call)
		return 0;
	direction = call->message.direction & 1;
	if (!call->head && !call->ending && !socket->capture_left[direction])
		return 0;
	if (direction == MESSAGE_SENT) {
		if (call->offset != socket->told) /* these went with segments that were not told of one by one */
			report_place(call, socket->told, call->offset - socket->told, 0, false);
		socket->told = call->offset + call->length;
	}
	if (call->head)
		report_bytes(socket, source, call, MESSAGE_HEAD, bytes_to_copy(socket, call));
	else if (socket->capture_left[direction])
		report_bytes(socket, source, call, MESSAGE_DATA,
			     bytes_to_copy_further(socket, call, socket->capture_left[direction]));
	else if (answers_model(socket, direction) && call->few && !call->prefix_length && !is_pipelining(socket, call))
		report_answer(source, call, 0, tail_of_call(source, call));
	else if (may_hide_head(socket, call)) /* a body may end in it, and a head begin */
		report_bytes(socket, source, call, MESSAGE_DATA, MAX_HEAD_BYTES);
	else
		report_place(call, call->offset - call->prefix_length, call->length + call->prefix_length,
			     call->prefix_length ? socket->prefix[direction] : tail_of_call(source, call),
			     !call->few && (source->size || source->nowhere));
	return 0;
}

/* A call on a connection that carries HTTP. */
static __always_inline void follow(struct http_socket *socket, struct source *source, struct call *call)
{
	if (socket->protocol == PROTOCOL_HTTP1) {
		follow_http1(socket, source, call);
		return;
	}
	if (call->head)
		begin_frames(socket, call);
	follow_frames(socket, source, call);
}

#endif
