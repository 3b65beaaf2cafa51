/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* What is kept of a connection that carries HTTP, and how its bytes are told of. */
#ifndef EBPFRECEIVER_HTTP_STREAM_H
#define EBPFRECEIVER_HTTP_STREAM_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "http/goroutine.h"
#include "http/message.h"
#include "ring.h"
#include "tcp.h"

#define EFAULT 14

/* User space forgets a connection that is idle for longer, so who it is has to be told again. */
#define DESCRIBE_EVERY_NS 60000000000ULL

enum http_protocol {
	PROTOCOL_UNKNOWN, /* no head was seen yet */
	PROTOCOL_HTTP1,
	PROTOCOL_HTTP2,
	PROTOCOL_TLS, /* of a socket: what it carries in plain is told of by the library */
};

/* How many messages found no room: what went between two others may be one of them. */
__u32 messages_lost = 0;

/* One direction of a connection of HTTP/2: see frames.h. */
struct frame_stream {
	__u32 at;	 /* the offset up to which its bytes were walked over */
	__u32 left;	 /* payload of the frame under way that is still to come */
	__u32 copy;	 /* the first bytes of it that are captured */
	__u32 place;	 /* how much of what is told of was walked over */
	__u32 told;	 /* the place up to which was told of */
	__u32 told_left; /* left there */
	__u8 header[16]; /* of the next frame, as far as it has come */
	__u8 header_length;
	bool silent; /* nothing is told of the frame under way */
	bool ends;   /* the frame under way ends its stream, so when it ends matters */
	bool lost;   /* where the next frame begins is not known */
	bool begins; /* the preface is to be told of */
	__u8 reserved[7];
};

/* A connection that has carried a head, or of which a call was shorter than what tells, and may have begun one. By
 * direction. */
struct http_socket {
	__u64 prefix[2]; /* these bytes of the last calls: a head may come in small pieces */
	__u64 described_ns;
	__u32 prefix_length[2];
	__u32 prefix_end[2];	 /* the offset after them */
	__u32 first_sequence[2]; /* where the stream begins */
	__u32 capture_left[2];	 /* what may still belong to a head that was not whole */
	__u32 told;		 /* the offset up to which was told of what is sent */
	__u32 described_pid;	 /* the process that was told of last */
	struct frame_stream frames[2];
	__u8 protocol;
	__u8 reserved[7];
};

/*
 * Where a message is put together: one for each direction, used by one program of the kernel each; and those that
 * programs in the middle of a process take, because another process may run on the CPU before they have ended.
 */
enum scratch {
	SCRATCH_RECEIVED = MESSAGE_RECEIVED,
	SCRATCH_SENT = MESSAGE_SENT,
	SCRATCH_TAKEN,
	SCRATCHES = SCRATCH_TAKEN + 4,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct captured_message);
} scratch SEC(".maps");

/*
 * A connection, as the program that runs has it: a socket, or what a library for TLS has made of one, in the middle of
 * a process. There, offsets count what it carries in plain, and tcp is NULL: the kernel's own programs describe it.
 */
struct carrier {
	struct tcp_sock *tcp;
	struct http_socket *socket;
	struct tls_connection *tls;
	__u32 scratch; /* which of them is its own */
};

/* What is known of a connection by its library for TLS: see tls.h. */
struct tls_connection {
	struct http_socket socket;
	__u64 cookie;	 /* of the socket that carries it; 0: not known yet */
	__u32 offset[2]; /* how much it has carried in plain, by direction, since it is known */
	__u32 srtt_us;
	__u32 retransmits;
	__u32 repeated; /* length of a write that will be repeated, and was told of; 0: of none */
	bool itself;	/* the library moves the bytes itself, in its calls */
	__u8 reserved[7];
};

static __always_inline void describe(struct message_head *head, struct carrier *carrier)
{
	struct inet_sock *inet = &carrier->tcp->inet_conn.icsk_inet;
	struct sock_common *common = &inet->sk.__sk_common;
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;

	head->start_boot_ns = leader->start_boottime;
	head->cgroup_id = tcp_cgroup_id(&inet->sk);
	head->pid = task->tgid;
	head->reserved = 0;
	__builtin_memcpy(head->comm, leader->comm, sizeof(head->comm));
	head->family = common->skc_family;
	__builtin_memset(head->local_address, 0, 16);
	__builtin_memset(head->peer_address, 0, 16);
	tcp_addresses(common, head->local_address, head->peer_address);
	head->local_port = bpf_ntohs(inet->inet_sport);
	head->peer_port = bpf_ntohs(common->skc_dport);
	head->local_sequence = carrier->socket->first_sequence[MESSAGE_SENT];
	head->remote_sequence = carrier->socket->first_sequence[MESSAGE_RECEIVED];
	head->unused[0] = head->unused[1] = 0;
}

/* The offset of the next byte of a direction that a program is to see. */
static __always_inline __u32 next_offset(struct carrier *carrier, __u8 direction)
{
	struct tcp_sock *tcp = carrier->tcp;

	if (!tcp)
		return carrier->tls->offset[direction & 1];
	return (direction == MESSAGE_SENT ? tcp->write_seq : tcp_sequence_read(tcp)) -
	       carrier->socket->first_sequence[direction & 1];
}

static __always_inline void fill(struct message *message, struct carrier *carrier, __u8 kind, __u8 direction,
				 __u32 offset, __u32 length)
{
	struct tcp_sock *tcp = carrier->tcp;

	message->time_ns = bpf_ktime_get_ns();
	message->flags = 0;
	if (tcp) {
		message->cookie = bpf_get_socket_cookie(tcp);
		message->srtt_us = tcp->srtt_us >> 3;
		message->retransmits = tcp->total_retrans;
	} else {
		message->cookie = carrier->tls->cookie;
		message->srtt_us = carrier->tls->srtt_us;
		message->retransmits = carrier->tls->retransmits;
		message->flags = MESSAGE_SECURE;
	}
	message->tail = 0;
	message->offset = offset;
	message->length = length;
	message->tid = bpf_get_current_pid_tgid();
	message->frame_left = 0;
	message->error = 0;
	message->captured = 0;
	message->kind = kind;
	message->direction = direction;
	__builtin_memset(message->reserved, 0, sizeof(message->reserved));
	message->lost = messages_lost;
	message->goroutine = message->parent_goroutine = 0;
	if (kind == MESSAGE_HEAD || kind == MESSAGE_FRAMES)
		note_goroutine(message);
}

/* Sends a message, and remembers if it could not. */
static __always_inline long send_message(void *ctx, void *message, __u64 size)
{
	long err = ring_output(ctx, message, size);

	if (err)
		__sync_fetch_and_add(&messages_lost, 1);
	return err;
}

/* Sends where bytes are. */
static __always_inline void report_place(void *ctx, struct carrier *carrier, __u8 direction, __u32 offset, __u32 length,
					 __u64 tail, bool unreadable)
{
	struct message message;

	fill(&message, carrier, MESSAGE_DATA, direction, offset, length);
	message.tail = tail;
	if (unreadable)
		message.error = -EFAULT;
	send_message(ctx, &message, sizeof(message));
}

/*
 * Sends a message with what was captured. It describes the connection and the process where user space has not been
 * told, or may have forgotten.
 */
static __always_inline void report_captured(void *ctx, struct carrier *carrier, struct captured_message *captured)
{
	struct http_socket *socket = carrier->socket;
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 now_ns = captured->message.time_ns;
	__u32 have = captured->message.captured & (2 * MAX_HEAD_BYTES - 1);

	if (!carrier->tcp || (socket->described_pid == pid && now_ns - socket->described_ns < DESCRIBE_EVERY_NS)) {
		/* The message moves to right before the bytes. */
		struct message *message = (void *)captured->data - sizeof(struct message);

		__builtin_memcpy(message, &captured->message, sizeof(*message));
		send_message(ctx, message, sizeof(*message) + have);
		return;
	}
	captured->message.flags |= MESSAGE_DESCRIBED;
	describe(&captured->head, carrier);
	if (send_message(ctx, captured, sizeof(struct message) + sizeof(struct message_head) + have))
		return;
	socket->described_pid = pid;
	socket->described_ns = now_ns;
}

#endif
