/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Connections on which several messages of HTTP/1 move in one call, of which only the first lies in what is copied.
 * More is copied of their calls. Here is seen that several requests are under way; where only user space sees that a
 * message was hidden, it tells of the process.
 */
#ifndef EBPFRECEIVER_HTTP_PIPELINING_H
#define EBPFRECEIVER_HTTP_PIPELINING_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/message.h"
#include "http/recognize.h"
#include "http/stream.h"

/* How much of a message is copied at most, for its head. */
const volatile __u32 head_bytes = 512;

/* Set by user space once there are any. */
bool pipelining_seen = false;

/* By process id, with the start time. Owner: user space, which has a bound of its own; the oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} pipelining SEC(".maps");

#define SEARCHED_REQUESTS 4   /* of a connection: who pipelines does so soon */
#define SEARCHED_BYTES	  512 /* of each */
#define EARLY_CALLS	  64

/* Whether calls on the connection are copied as far as they can be. The process is looked up once a call at most. */
static __always_inline bool is_pipelining(struct http_socket *socket, struct call *call)
{
	struct task_struct *task;
	__u64 *start;
	__u32 pid;

	if (socket->pipelines)
		return true;
	if (!pipelining_seen || call->looked_up)
		return false;
	call->looked_up = true;
	task = bpf_get_current_task_btf();
	pid = task->tgid;
	start = bpf_map_lookup_elem(&pipelining, &pid);
	if (!start || *start != task->group_leader->start_boottime)
		return false;
	socket->pipelines = true;
	return true;
}

/* How much of a call is copied in which a head begins. */
static __always_inline __u32 bytes_to_copy(struct http_socket *socket, struct call *call)
{
	return call->length > head_bytes && is_pipelining(socket, call) ? MAX_HEAD_BYTES : head_bytes;
}

/* Whether a call in which no head begins is copied, because one may begin further behind. */
static __always_inline bool may_hide_head(struct http_socket *socket, struct call *call)
{
	if (is_pipelining(socket, call))
		return true;
	/*
	 * The response came before the end of the request. Who reads on throws the rest away, and may read with it the
	 * next request, which the client sends because it has its response.
	 */
	if (!socket->early_calls || call->message.direction != socket->asking)
		return false;
	socket->early_calls--;
	return true;
}

/* How much of a call is copied in which a head goes on, of which no more than so much would be. */
static __always_inline __u32 bytes_to_copy_further(struct http_socket *socket, struct call *call, __u32 left)
{
	return call->length > left && may_hide_head(socket, call) ? MAX_HEAD_BYTES : left;
}

/* Whether the first bytes of a request have the version of a second one. It is searched for in steps of a word. */
__noinline bool has_two_requests(struct captured_message *captured, __u32 have)
{
	bool found = false;

	if (!captured)
		return false;
	for (__u32 at = 0; at < SEARCHED_BYTES && at + sizeof(__u32) <= have; at += sizeof(__u32)) {
		switch (*(__u32 *)(captured->data + at)) {
		case WORD('H', 'T', 'T', 'P'):
		case WORD('T', 'T', 'P', '/'):
		case WORD('T', 'P', '/', '1'):
		case WORD('P', '/', '1', '.'):
			if (found)
				return true;
			found = true;
		}
	}
	return false;
}

/* Takes note of a head, of which so much was captured. */
static __always_inline void note_head(struct http_socket *socket, struct call *call, struct captured_message *captured,
				      __u32 have)
{
	if ((__u32)call->first == WORD('H', 'T', 'T', 'P')) {
		/* After HTTP/1.1 100 the final response comes. */
		if (have > 9 && captured->data[9] != '1' && socket->waiting) {
			socket->waiting = false;
			socket->early_calls = EARLY_CALLS;
		}
		return;
	}
	if (socket->waiting)
		socket->pipelines = true;
	socket->waiting = true;
	socket->early_calls = 0;
	socket->asking = call->message.direction;
}

/*
 * Whether there are several requests in a call, in which a head begins or goes on, so that more is to be captured of it
 * than the limit.
 */
static __always_inline bool hides_requests(struct http_socket *socket, struct call *call,
					   struct captured_message *captured, __u32 have, __u32 limit)
{
	if (have < limit || have >= call->length + call->prefix_length || have >= MAX_HEAD_BYTES || !socket->waiting ||
	    call->message.direction != socket->asking)
		return false;
	if (!socket->pipelines && socket->searched < SEARCHED_REQUESTS) {
		socket->searched++;
		socket->pipelines = has_two_requests(captured, have);
	}
	return socket->pipelines;
}

#endif
