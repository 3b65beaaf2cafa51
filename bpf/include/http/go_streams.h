/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Which goroutine serves a stream of HTTP/2 in a program of Go, and which one asks with a stream: others move the
 * bytes. Uprobes tell of it, in programs that do both.
 *
 * A server starts a goroutine for each request: golang.org/x/net/http2 and net/http in the one that has started the
 * reader of the connection, grpc-go in the reader itself. So the goroutine that begins to serve tells of its stream,
 * and of the one that started it; user space knows which connection that one reads, or has others read:
 *
 *   http2.(*serverConn).runHandler, grpc.(*Server).handleStream --> message
 *
 * A client of x/net's http2 writes a request in a goroutine that the one that asks has started, which needs no uprobe.
 * In grpc-go, one goroutine writes all that a connection sends. What it is given of a request is an item of a queue,
 * which has the same address on both sides of it:
 *
 *   transport.(*http2Client).NewStream --> (*controlBuffer).executeAndPut     the goroutine that asks, and the item
 *   transport.(*loopyWriter).headerHandler (clientHeaderHandler) --> message  the item, its stream, and the writer
 *
 * The last is before the writer sends the request, so the message comes before that.
 */
#ifndef EBPFRECEIVER_HTTP_GO_STREAMS_H
#define EBPFRECEIVER_HTTP_GO_STREAMS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/goroutine.h"
#include "http/message.h"
#include "http/stream.h"
#include "loss.h"

/* In the cookie of a uprobe: which function begins, with its arguments as they are in registers. */
enum go_stream_event {
	GO_STREAM_READ = 1, /* transport.(*http2Server).HandleStreams: the goroutine begins to read a connection */
	GO_STREAM_SERVED,   /* grpc.(*Server).handleStream: (server, transport's two words, stream) */
	GO_STREAM_HANDLED,  /* http2.(*serverConn).runHandler: (connection, response writer, ...) */
	GO_STREAM_ASKED,    /* transport.(*http2Client).NewStream */
	GO_STREAM_QUEUED,   /* transport.(*controlBuffer).executeAndPut: (buffer, function, item's two words) */
	GO_STREAM_WRITTEN,  /* transport.(*loopyWriter).headerHandler: (writer, item) */
};

/* And where the number of the stream is, from the argument that leads to it. */
enum go_stream_cookie {
	GO_STREAM_EVENT_BITS = 8,
	GO_STREAM_POINTERS = 1 << 8, /* times how many pointers are to be followed, up to 3 */
	GO_STREAM_OFFSET = 1 << 16,  /* times the offset behind them */
	GO_STREAM_MAX_POINTERS = 3,
};

const enum go_stream_event *keep_go_stream_event __attribute__((unused));
const enum go_stream_cookie *keep_go_stream_cookie __attribute__((unused));

/* Who asks with an item. */
struct go_asker {
	__u64 goroutine;
	__u64 parent_goroutine;
};

/* Goroutines that are about to queue a request, by the address of their struct g. Owner: the request, when it is
 * queued; the oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct go_address);
	__type(value, __u8);
} go_asking SEC(".maps");

/* Requests in the queues of connections, by the address of the item. Owner: the writer, which takes them; the oldest
 * go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct go_address);
	__type(value, struct go_asker);
} go_queued SEC(".maps");

/* The number of the stream that an argument leads to; 0: it cannot be read, or is none that a client has opened. */
static __always_inline __u32 go_stream_number(__u64 address, __u64 cookie)
{
	__u32 pointers = cookie / GO_STREAM_POINTERS & GO_STREAM_MAX_POINTERS;
	__u32 number = 0;

	for (__u32 followed = 0; followed < GO_STREAM_MAX_POINTERS; followed++) {
		if (followed >= pointers)
			break;
		if (bpf_probe_read_user(&address, sizeof(address), (const void *)address))
			return 0;
	}
	if (bpf_probe_read_user(&number, sizeof(number), (const void *)(address + (__u16)(cookie / GO_STREAM_OFFSET))))
		return 0;
	return number & 1 ? number : 0;
}

static __always_inline int tell_go_stream(void *ctx, __u8 direction, __u8 event, __u32 number, struct go_asker *who,
					  __u64 writer)
{
	struct message message;

	begin_message(&message, direction);
	message.kind = MESSAGE_STREAM;
	message.cookie = bpf_get_current_pid_tgid() >> 32;
	message.offset = number;
	message.length = event;
	message.goroutine = who->goroutine;
	message.parent_goroutine = who->parent_goroutine;
	message.tail = writer;
	send_message(ctx, &message, sizeof(message));
	return 0;
}

static __always_inline int go_stream(struct pt_regs___goroutine *ctx, __u64 cookie)
{
	struct go_address key = {.pid = bpf_get_current_pid_tgid() >> 32};
	__u8 event = cookie & ((1 << GO_STREAM_EVENT_BITS) - 1);
	__u64 g = goroutine_address(ctx), stack = goroutine_stack(ctx), parent = 0;
	struct go_asker who = {}, *asker;
	struct go_process *process;
	__u32 number = 0;
	__u8 one = 1;

	if (event == GO_STREAM_QUEUED) { /* most of what is queued is no request */
		key.address = g;
		if (!bpf_map_lookup_elem(&go_asking, &key))
			return 0;
		bpf_map_delete_elem(&go_asking, &key);
	}
	process = current_go_process();
	if (!process)
		return 0;
	if (event == GO_STREAM_ASKED) {
		key.address = g;
		if (bpf_map_update_elem(&go_asking, &key, &one, BPF_ANY))
			count_loss(LOSS_STORAGE_FULL);
		return 0;
	}
	if (event == GO_STREAM_WRITTEN) {
		key.address = second_argument(ctx);
		asker = bpf_map_lookup_elem(&go_queued, &key);
		if (!asker)
			return 0;
		number = go_stream_number(key.address, cookie);
		read_goroutine(process, g, stack, &who.goroutine, &parent);
		if (number && who.goroutine)
			tell_go_stream(ctx, MESSAGE_SENT, event, number, asker, who.goroutine);
		bpf_map_delete_elem(&go_queued, &key);
		return 0;
	}
	read_goroutine(process, g, stack, &who.goroutine, &who.parent_goroutine);
	if (!who.goroutine)
		return 0;
	switch (event) {
	case GO_STREAM_QUEUED:
		key.address = fourth_argument(ctx);
		if (bpf_map_update_elem(&go_queued, &key, &who, BPF_ANY))
			count_loss(LOSS_STORAGE_FULL);
		return 0;
	case GO_STREAM_READ:
		return tell_go_stream(ctx, MESSAGE_RECEIVED, event, 0, &who, 0);
	case GO_STREAM_SERVED:
		number = go_stream_number(fourth_argument(ctx), cookie);
		break;
	case GO_STREAM_HANDLED:
		number = go_stream_number(second_argument(ctx), cookie);
		break;
	}
	if (number)
		tell_go_stream(ctx, MESSAGE_RECEIVED, event, number, &who, 0);
	return 0;
}

#endif
