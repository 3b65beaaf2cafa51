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
	__u64 cookie; /* of the socket; of a library's connection that of the one that carries it, 0: not known yet */
	__u64 prefix[2]; /* these bytes of the last calls: a head may come in small pieces */
	__u64 described_ns;
	struct known_go go; /* the process that moved bytes last */
	__u32 prefix_length[2];
	__u32 prefix_end[2];	 /* the offset after them */
	__u32 first_sequence[2]; /* where the stream begins */
	__u32 capture_left[2];	 /* what may still belong to a head that was not whole */
	__u32 told;		 /* the offset up to which was told of what is sent */
	__u32 described_pid;	 /* the process that was told of last */
	__u32 received;		 /* the offset up to which was told of what is received */
	__u8 protocol;
	__u8 model; /* see gen_ai.h */
	/* See pipelining.h. */
	__u8 asking;	  /* the direction of requests */
	__u8 waiting;	  /* a request was seen, and no final response to it */
	__u8 pipelines;	  /* several requests are under way at a time */
	__u8 searched;	  /* requests in which others were looked for */
	__u8 early_calls; /* how many calls are still copied of a body that goes on after its response */
	__u8 reserved[5];
	struct frame_stream frames[2];
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
 * A call that moves bytes, on its way through the program. The functions that take it are verified once each, and know
 * nothing of sockets.
 */
struct call {
	struct message message; /* what all messages that come of it have in common */
	__u64 first;		/* the first bytes of the call; where a head begins, of the head */
	__u32 few;		/* how many of them there are, up to 8 */
	__u32 offset;
	__u32 length;
	__u32 answers_at;    /* the offset of the next byte in the other direction */
	__u32 prefix_length; /* how many bytes of a head came right before the call */
	__u32 scratch;	     /* which of them is its own */
	__u32 captured;	     /* how many of its first bytes are there already */
	__u32 captured_at;   /* where, behind so much of the last calls */
	bool ending;	     /* nothing of what the process gave comes after it */
	bool head;	     /* a head begins with it, or with the bytes right before it */
	bool looked_up;	     /* whether its process pipelines */
	__u8 reserved[5];
};

/* What is known of a connection by its library for TLS: see tls.h. */
struct tls_connection {
	struct http_socket socket;
	__u32 offset[2]; /* how much it has carried in plain, by direction, since it is known */
	__u32 srtt_us;
	__u32 retransmits;
	__u32 repeated; /* length of a write that will be repeated, and was told of; 0: of none */
	bool itself;	/* the library moves the bytes itself, in its calls */
	__u8 reserved[7];
};

/* Where a connection is described. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct described_connection);
} descriptions SEC(".maps");

/* The offset of the next byte that a socket's process is to send or receive. */
static __always_inline __u32 next_offset(struct tcp_sock *tcp, struct http_socket *socket, __u8 direction)
{
	return (direction == MESSAGE_SENT ? tcp->write_seq : tcp_sequence_read(tcp)) -
	       socket->first_sequence[direction & 1];
}

/* What all messages have in common that come of a call. Returns the id of the process. */
static __always_inline __u32 begin_message(struct message *message, __u8 direction)
{
	__u64 pid_tid = bpf_get_current_pid_tgid();

	__builtin_memset(message, 0, sizeof(*message));
	message->time_ns = bpf_ktime_get_ns();
	message->tid = pid_tid;
	message->direction = direction;
	message->lost = messages_lost;
	return pid_tid >> 32;
}

/* Sends a message, and remembers if it could not. */
static __always_inline long send_message(void *ctx, void *message, __u64 size)
{
	long err = ring_output(ctx, message, size);

	if (err)
		__sync_fetch_and_add(&messages_lost, 1);
	return err;
}

static __always_inline void describe_socket(struct message *message, struct http_socket *socket, struct tcp_sock *tcp)
{
	message->cookie = socket->cookie;
	message->srtt_us = tcp->srtt_us >> 3;
	message->retransmits = tcp->total_retrans;
}

/* Whether user space has not been told whose a connection is now, or may have forgotten. */
static __always_inline bool must_describe(struct http_socket *socket, __u32 pid, __u64 now_ns)
{
	return socket->described_pid != pid || now_ns - socket->described_ns >= DESCRIBE_EVERY_NS;
}

/* Tells of a connection and the process at this end. */
static __noinline void describe_now(void *ctx, struct tcp_sock *tcp, struct http_socket *socket, struct call *call)
{
	struct inet_sock *inet = &tcp->inet_conn.icsk_inet;
	struct sock_common *common = &inet->sk.__sk_common;
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader;
	struct described_connection *described;
	struct message_head *head;
	__u32 which = call->scratch;

	described = bpf_map_lookup_elem(&descriptions, &which);
	if (!described)
		return;
	described->message = call->message;
	described->message.kind = MESSAGE_CONNECTION;
	if (socket->protocol == PROTOCOL_TLS)
		described->message.flags |= MESSAGE_SECURE;
	if (call->offset <= 1)
		described->message.flags |= MESSAGE_BEGINNING;
	leader = task->group_leader;
	head = &described->head;
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
	head->local_sequence = socket->first_sequence[MESSAGE_SENT];
	head->remote_sequence = socket->first_sequence[MESSAGE_RECEIVED];
	head->unused[0] = head->unused[1] = 0;
	if (send_message(ctx, described, sizeof(*described)))
		return;
	socket->described_pid = task->tgid;
	socket->described_ns = call->message.time_ns;
}

/* The same, where it has to. */
static __always_inline void describe(void *ctx, struct tcp_sock *tcp, struct http_socket *socket, struct call *call,
				     __u32 pid)
{
	if (must_describe(socket, pid, call->message.time_ns))
		describe_now(ctx, tcp, socket, call);
}

/* Sends where bytes are. There is no context here: where a perf buffer takes the place of the ring, nothing loads. */
static __always_inline void report_place(struct call *call, __u32 offset, __u32 length, __u64 tail, bool unreadable)
{
	struct message message = call->message;

	message.kind = MESSAGE_DATA;
	message.offset = offset;
	message.length = length;
	message.tail = tail;
	if (unreadable)
		message.error = -EFAULT;
	send_message(NULL, &message, sizeof(message));
}

/* Sends a message with what was captured. */
static __always_inline void report_captured(struct captured_message *captured)
{
	__u32 have = captured->message.captured & (2 * MAX_HEAD_BYTES - 1);

	send_message(NULL, captured, sizeof(captured->message) + have);
}

#endif
