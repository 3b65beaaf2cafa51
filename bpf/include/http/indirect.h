/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * What a process receives in ways that do not say where its buffer is: by io_uring, in a call or behind its back, and
 * by recvmmsg. Its bytes are read in the packets that they come in. And what it takes from a socket without reading it:
 * by a splice to a pipe, or by mapping it; of that, the places are told.
 *
 * The hooks for this are on the way of all that this host receives, so they are attached where somebody does so.
 */
#ifndef EBPFRECEIVER_HTTP_INDIRECT_H
#define EBPFRECEIVER_HTTP_INDIRECT_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "http/frames.h"
#include "http/message.h"
#include "http/recognize.h"
#include "http/source.h"
#include "http/stream.h"
#include "syscall.h"
#include "tcp.h"

#define PF_IO_WORKER 0x00000010

#define TCP_FLAG_SYN 0x02 /* of tcp_skb_cb.tcp_flags */

#define MAX_PACKET_PIECES 20 /* more than a packet of 64 KiB has */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock___socket {
	struct socket *sk_socket;
};

#pragma clang attribute pop

extern int bpf_dynptr_from_skb(struct sk_buff *packet, __u64 flags, struct bpf_dynptr *bytes) __ksym;

/* User space attaches http_receive_packet where the first is set, and http_receive_moved where the second is. */
bool need_packets = false;
bool need_moved = false;

/* What of a packet a process takes, and the part of it that is looked at. */
struct packet {
	struct source source;
	struct call call;
	__u32 sequence; /* of the first byte */
	__u32 offset;	/* of the first byte in the packet */
	__u32 length;
	__u32 piece; /* how much of it is looked at at first */
	union {
		__u64 first;
		__u8 bytes[MAX_HEAD_BYTES];
	};
};

/* Not on the stack, where there is no room for it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__uint(value_size, sizeof(struct packet)); /* no type for the Go bindings, which cannot have its pointers */
} packets SEC(".maps");

/* Has http_receive_packet attached, at once. */
static __always_inline void ask_for_packets(void *ctx)
{
	struct message message;

	if (need_packets)
		return;
	need_packets = true;
	begin_message(&message, MESSAGE_RECEIVED);
	message.kind = MESSAGE_WAKE;
	ring_output_now(ctx, &message, sizeof(message));
}

/* What a process sends without having it in its memory: by sendfile, or by a splice as a proxy does, both ways. */
static __always_inline void note_sent_unread(void)
{
	struct syscall call;

	if (need_moved || (bpf_get_current_task_btf()->flags & PF_KTHREAD) || !current_syscall(&call))
		return;
	if (call.number == (call.narrow ? SYS32_splice : SYS_splice))
		need_moved = true;
}

/* Whether http_receive knows the buffer of what the current task receives, or has nothing to know. */
static __always_inline bool is_received_directly(void)
{
	__u32 flags = bpf_get_current_task_btf()->flags;
	struct syscall call;

	if (flags & PF_KTHREAD)
		return true;
	return !(flags & PF_IO_WORKER) && current_syscall(&call) && syscall_receives(&call);
}

/*
 * Finds the bytes that the current system call has received. False: it does not say; then http_receive_packet has told
 * of them, or does so from now on.
 */
static __always_inline bool find_received(void *ctx, struct source *source, __u32 received)
{
	struct syscall_buffer buffer;
	__u32 flags = bpf_get_current_task_btf()->flags;

	if (flags & PF_KTHREAD)
		return true; /* for the kernel itself, and in none */
	if (flags & PF_IO_WORKER || !syscall_receive_buffer(&buffer)) {
		ask_for_packets(ctx);
		source->nowhere = true;
		return false;
	}
	source->size = received;
	source->base = buffer.base;
	if (buffer.iovec) {
		struct iovec segment;

		source->more = buffer.iovec;
		source->narrow = buffer.narrow;
		if (!read_segment(source, 0, &segment)) {
			source->more = NULL;
			source->size = 0;
			return true;
		}
		source->base = segment.iov_base;
		source->size = segment.iov_len;
		if (source->size >= received)
			source->more = NULL;
		else if (source->narrow)
			source->more = (const void *)((const struct narrow_iovec *)buffer.iovec + 1);
		else
			source->more = buffer.iovec + 1;
	}
	return true;
}

/* Takes note of what is told of. */
static __always_inline void note_received(struct http_socket *socket, __u32 offset, __u32 length)
{
	__s32 ahead = offset - socket->received;

	if (ahead > 0 && !need_moved)
		need_moved = true;
	if ((__s32)(ahead + length) > 0)
		socket->received = offset + length;
}

static __always_inline bool is_told_received(struct http_socket *socket, __u32 sequence, __u32 length)
{
	__u32 offset = sequence - socket->first_sequence[MESSAGE_RECEIVED];

	return (__s32)(offset + length - socket->received) <= 0;
}

/*
 * The socket whose queue a packet is in. The verifier takes what a packet names for too short-lived to be given to
 * helpers, but not what comes after it. The socket is locked by who receives, so both are there.
 */
static __always_inline struct sock *packet_socket(struct sk_buff *buffer)
{
	struct sock___socket *sk = (struct sock___socket *)buffer->sk;
	struct socket *socket = sk ? sk->sk_socket : NULL;

	return socket ? socket->sk : NULL;
}

/* Finds what of a packet is copied next: it has the socket's next byte, unless that is looked at alone (MSG_PEEK). */
static __always_inline bool find_in_packet(struct tcp_sock *tcp, struct sk_buff *buffer, __u32 length,
					   struct packet *packet)
{
	struct tcp_skb_cb *tag = (struct tcp_skb_cb *)buffer->cb;
	__u32 first = BPF_CORE_READ(tag, seq) + !!(BPF_CORE_READ(tag, tcp_flags) & TCP_FLAG_SYN);

	packet->sequence = tcp->copied_seq;
	packet->offset = packet->sequence - first;
	packet->length = packet->piece = length;
	return packet->offset < buffer->len && length <= buffer->len - packet->offset;
}

/* Tells of the bytes of HTTP/1 that were taken since the last ones that were told of. In HTTP/2, frames.h passes holes.
 */
static __always_inline void report_moved(struct http_socket *socket, struct tcp_sock *tcp)
{
	__s32 length = next_offset(tcp, socket, MESSAGE_RECEIVED) - socket->received;
	struct call call = {};

	if (length <= 0)
		return;
	begin_message(&call.message, MESSAGE_RECEIVED);
	describe_socket(&call.message, socket, tcp);
	report_place(&call, socket->received, length, 0, true);
	socket->received += length;
}

/* Copies bytes of a packet from a place on. Returns how many. */
static __always_inline __u32 copy_of_packet(struct bpf_dynptr *bytes, struct packet *packet, __u32 from)
{
	__u32 wanted = packet->length - from;

	if (!wanted)
		return 0;
	if (wanted > MAX_HEAD_BYTES)
		wanted = MAX_HEAD_BYTES;
	wanted -= 1;
	asm volatile("%0 &= %1" : "+r"(wanted) : "i"(MAX_HEAD_BYTES - 1));
	wanted += 1;
	if (bpf_dynptr_read(packet->bytes, wanted, bytes, packet->offset + from, 0))
		return 0;
	packet->source.base = packet->bytes;
	packet->source.size = wanted;
	return wanted;
}

/*
 * The next piece of HTTP/2, after what is done. The payload of a frame under way that nobody needs is passed over
 * unread: what follows it is read as if the source began there. Returns how long the piece is.
 */
static __always_inline __u32 next_piece(struct bpf_dynptr *bytes, struct packet *packet, struct http_socket *socket,
					__u32 done)
{
	struct frame_stream *frames = &socket->frames[MESSAGE_RECEIVED];
	__u32 offset = packet->sequence + done - socket->first_sequence[MESSAGE_RECEIVED];
	__u32 rest = packet->length - done;
	__u32 pass = 0;

	__builtin_memset(&packet->source, 0, sizeof(packet->source));
	packet->source.copied = true;
	if (!frames->lost && frames->at == offset && !frames->copy)
		pass = frames->left < rest ? frames->left : rest;
	packet->source.begin = pass;
	return pass + copy_of_packet(bytes, packet, done + pass);
}

/* Reads what user space may need of a packet, and says how much of it is a piece. */
static __always_inline bool read_packet(struct bpf_dynptr *bytes, struct packet *packet, struct http_socket *socket)
{
	__u32 have;

	if (socket && socket->protocol == PROTOCOL_HTTP2) {
		packet->piece = next_piece(bytes, packet, socket, 0);
		return packet->piece;
	}
	__builtin_memset(&packet->source, 0, sizeof(packet->source));
	packet->source.copied = true;
	have = copy_of_packet(bytes, packet, 0);
	if (have == packet->length || have < sizeof(packet->first))
		return have;
	if (looks_like_preface(packet->first) || looks_like_headers_frame(packet->first))
		packet->piece = have;
	else if (bpf_dynptr_read(&packet->source.tail, sizeof(packet->source.tail), bytes,
				 packet->offset + packet->length - sizeof(packet->source.tail), 0))
		packet->source.tail = 0;
	return true;
}

/* Goes on in a packet of HTTP/2 after its first piece. */
static __always_inline void follow_packet(struct http_socket *socket, struct tcp_sock *tcp, struct bpf_dynptr *bytes,
					  struct packet *packet)
{
	__u32 done = packet->piece;

	for (int i = 0; i < MAX_PACKET_PIECES && done < packet->length; i++) {
		struct call *call = &packet->call;
		__u32 piece = next_piece(bytes, packet, socket, done);

		if (!piece)
			return;
		__builtin_memset(call, 0, sizeof(*call));
		call->offset = packet->sequence + done - socket->first_sequence[MESSAGE_RECEIVED];
		call->length = piece;
		call->scratch = SCRATCH_RECEIVED;
		call->ending = true;
		begin_message(&call->message, MESSAGE_RECEIVED);
		describe_socket(&call->message, socket, tcp);
		note_received(socket, call->offset, call->length);
		follow_frames(socket, &packet->source, call);
		done += piece;
	}
}

#endif
