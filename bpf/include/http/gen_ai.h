/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Requests to model servers, of whose bodies user space reads a little: which model, and what it took. Of a message up
 * to 4 KiB are copied, with its head. Of a response also the last 4 KiB of each call: what it took stands at its end.
 */
#ifndef EBPFRECEIVER_HTTP_GEN_AI_H
#define EBPFRECEIVER_HTTP_GEN_AI_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/frames.h"
#include "http/message.h"
#include "http/recognize.h"
#include "http/source.h"
#include "http/stream.h"

/* Whether anything of this is wanted. Set before it is loaded. */
const volatile bool gen_ai = false;

/* What http_socket.model says, of the last request of a connection. */
enum model_request {
	MODEL_NONE,
	MODEL_RECEIVED, /* it is one to a model server, and was received */
	MODEL_SENT,
};

#define EIGHT(a, b, c, d, e, f, g, h) ((__u64)WORD(e, f, g, h) << 32 | WORD(a, b, c, d))

/*
 * Whether the first bytes of a request's head, as two words, are those of a path that genai.Operation may know:
 * OpenAI's alone, those that proxies and others have before it, Azure's, and Ollama's. User space looks at the rest.
 */
static __always_inline bool asks_model(__u64 first, __u64 second)
{
	switch (first) {
	case EIGHT('P', 'O', 'S', 'T', ' ', '/', 'v', '1'):
		return second == EIGHT('/', 'c', 'h', 'a', 't', '/', 'c', 'o') ||
		       second == EIGHT('/', 'c', 'o', 'm', 'p', 'l', 'e', 't') ||
		       second == EIGHT('/', 'e', 'm', 'b', 'e', 'd', 'd', 'i');
	case EIGHT('P', 'O', 'S', 'T', ' ', '/', 'a', 'p'):
		return second == EIGHT('i', '/', 'g', 'e', 'n', 'e', 'r', 'a') ||
		       second == EIGHT('i', '/', 'v', '1', '/', 'c', 'h', 'a') ||
		       second == EIGHT('i', '/', 'v', '1', '/', 'c', 'o', 'm') ||
		       second == EIGHT('i', '/', 'v', '1', '/', 'e', 'm', 'b') ||
		       (second & 0xffffffffffffULL) == EIGHT('i', '/', 'c', 'h', 'a', 't', 0, 0);
	case EIGHT('P', 'O', 'S', 'T', ' ', '/', 'o', 'p'):
		return second == EIGHT('e', 'n', 'a', 'i', '/', 'v', '1', '/') ||
		       second == EIGHT('e', 'n', 'a', 'i', '/', 'd', 'e', 'p');
	}
	return false;
}

/* Whether what moves in a direction answers a request to a model server. */
static __always_inline bool answers_model(struct http_socket *socket, __u8 direction)
{
	return gen_ai && socket->model == (direction == MESSAGE_SENT ? MODEL_RECEIVED : MODEL_SENT);
}

/* How much of a call is captured in which a head begins, of which this much is wanted else, and so much is there. */
static __always_inline __u32 model_bytes(struct http_socket *socket, struct source *source, struct call *call,
					 struct captured_message *captured, __u32 have, __u32 otherwise)
{
	__u8 direction = call->message.direction & 1;

	if ((__u32)call->first == WORD('H', 'T', 'T', 'P'))
		return answers_model(socket, direction) ? MAX_HEAD_BYTES : otherwise;
	socket->model = MODEL_NONE;
	if ((__u32)call->first != WORD('P', 'O', 'S', 'T') || call->length + call->prefix_length < 16)
		return otherwise;
	if (have < 16 && capture(source, captured, have, 16) != 16)
		return otherwise;
	if (!asks_model(*(__u64 *)captured->data, *(__u64 *)(captured->data + 8)))
		return otherwise;
	socket->model = direction == MESSAGE_SENT ? MODEL_SENT : MODEL_RECEIVED;
	return MAX_HEAD_BYTES;
}

/*
 * Sends a further part of a response: what comes after the first bytes of a call, whose last bytes are captured.
 * Nothing is captured of it where they cannot be read.
 */
__noinline int report_answer(struct source *source, struct call *call, __u32 from, __u64 tail)
{
	struct captured_message *captured;
	__u32 which, length, wanted;

	if (!source || !call || from >= call->length)
		return 0;
	which = call->scratch;
	captured = bpf_map_lookup_elem(&scratch, &which);
	if (!captured)
		return 0;
	length = call->length - from;
	wanted = length < MAX_HEAD_BYTES ? length : MAX_HEAD_BYTES;
	source->index = 0;
	source->begin = 0;
	if (source->copied && source->size < call->length)
		wanted = 0; /* the end is not there */
	else if (capture_at(source, captured, 0, call->length - wanted, wanted) != wanted)
		wanted = 0;
	captured->message = call->message;
	captured->message.kind = MESSAGE_DATA;
	captured->message.offset = call->offset + from;
	captured->message.length = length;
	captured->message.tail = tail;
	captured->message.captured = wanted;
	if (wanted && wanted < length)
		captured->message.flags |= MESSAGE_LAST_BYTES;
	report_captured(captured);
	return 0;
}

#endif
