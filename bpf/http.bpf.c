// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * The HTTP probe: which messages processes send and receive on TCP sockets.
 *
 * The kernel side recognizes the first bytes of a message, copies what its head needs, and says where in the stream
 * each call's bytes are. Everything else (heads, bodies, pairing) is done in user space, from these positions. Of
 * HTTP/2 it walks over the frames, and copies those that carry header fields.
 *
 *   send, receive --> first bytes of a message? --> head on the ring, with the bytes
 *                 |-> socket known to carry HTTP/1 --> data on the ring, without
 *                 \-> socket known to carry HTTP/2 --> frames on the ring
 *   socket freed  --> end on the ring
 *
 * A socket that carries something else has no state here: each of its calls costs one look at eight bytes.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "http/frames.h"
#include "http/go_client.h"
#include "http/go_tables.h"
#include "http/http1.h"
#include "http/message.h"
#include "http/recognize.h"
#include "http/source.h"
#include "http/stream.h"
#include "http/tls.h"
#include "loss.h"
#include "ring.h"
#include "syscall.h"
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The collector's own process: it does not observe itself. */
const volatile __u32 self_pid = 0;

/* Whether sockets that carry TLS are told of, so that its libraries are found. */
const volatile bool follow_tls = false;

#define MSG_PEEK  0x02
#define MSG_TRUNC 0x20

#define PF_IO_WORKER 0x00000010

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock___memory {
	int sk_wmem_queued;
};

struct inet_connection_sock___protocol {
	const void *icsk_ulp_ops;
};

struct sk_buff___length {
	unsigned int len;
};

#pragma clang attribute pop

/* Owner: the kernel, with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct http_socket);
} sockets SEC(".maps");

static __always_inline struct http_socket *begin(struct sock *sk, struct tcp_sock *tcp)
{
	struct http_socket *socket = bpf_sk_storage_get(&sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	__u32 sent, received;

	if (!socket) {
		count_loss(LOSS_STORAGE_FULL);
		return NULL;
	}
	/* Each is the difference of two counters, which may change in between: a call that receives has no lock. */
	for (int attempt = 0; attempt < 4; attempt++) {
		sent = tcp_first_sequence_sent(tcp, !tcp_was_accepted(sk));
		received = tcp_first_sequence_received(tcp);
		barrier();
		if (sent == tcp_first_sequence_sent(tcp, !tcp_was_accepted(sk)) &&
		    received == tcp_first_sequence_received(tcp))
			break;
	}
	socket->first_sequence[MESSAGE_SENT] = sent;
	socket->first_sequence[MESSAGE_RECEIVED] = received;
	return socket;
}

/* A call that moves length bytes, the first of which has the sequence number; if it is not ending, then further ones.
 */
static __always_inline int transferred(void *ctx, struct sock *sk, struct tcp_sock *tcp, struct source *source,
				       __u8 direction, __u32 sequence, __u32 length, bool ending)
{
	struct http_socket *socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	struct call call = {};
	bool tls = false;
	bool frames = false;

	if (!socket || socket->protocol < PROTOCOL_HTTP2)
		call.few = first_bytes(source, length, &call.first);
	if (!socket) {
		tls = follow_tls && looks_like_tls(call.first, call.few);
		frames = call.few == sizeof(call.first) && looks_like_headers_frame(call.first);
		if (!tls && !frames &&
		    (call.few == sizeof(call.first) ? !looks_like_head(call.first)
						    : !call.few || !may_begin_head(call.first, call.few)))
			return 0;
		if (bpf_get_current_pid_tgid() >> 32 == self_pid)
			return 0;
		socket = begin(sk, tcp);
		if (!socket)
			return 0;
		socket->told = direction == MESSAGE_SENT ? sequence - socket->first_sequence[MESSAGE_SENT]
							 : next_offset(tcp, socket, MESSAGE_SENT);
	}
	call.offset = sequence - socket->first_sequence[direction];
	call.length = length;
	call.ending = ending;
	call.scratch = direction;
	call.answers_at = next_offset(tcp, socket, !direction);
	if (socket->protocol < PROTOCOL_HTTP2 && direction == MESSAGE_SENT &&
	    (__s32)(call.offset + length - socket->told) <= 0)
		return 0; /* the same call as before, in a further segment */
	begin_message(&call.message, direction);
	describe_socket(&call.message, tcp);
	if (tls)
		socket->protocol = PROTOCOL_TLS;
	else if (frames)
		join_frames(socket, &call);
	else if (socket->protocol < PROTOCOL_HTTP2 && !recognize(socket, &call)) {
		if (!socket->prefix_length[MESSAGE_SENT] && !socket->prefix_length[MESSAGE_RECEIVED])
			bpf_sk_storage_delete(&sockets, sk);
		return 0;
	}
	if (call.head && direction == MESSAGE_SENT)
		take_go_caller((__u64)sk, &call.message);
	describe(ctx, tcp, socket, &call);
	if (socket->protocol == PROTOCOL_TLS)
		note_tls(&call);
	else
		follow(socket, source, &call);
	return 0;
}

/*
 * A protocol over TCP in the kernel, such as TLS: what processes send and receive is not what the stream carries, and
 * its places there are others.
 */
static __always_inline bool is_wrapped(struct tcp_sock *tcp)
{
	struct inet_connection_sock___protocol *connection = (void *)&tcp->inet_conn;

	return connection->icsk_ulp_ops != NULL;
}

/*
 * tcp:tcp_sendmsg_locked (6.16): before bytes are taken from the process, and again for each further segment of the
 * socket's queue. That is before the peer can answer, so a request is always told of before its response.
 *
 * A call may move less than it was asked to, and take long: it waits for memory, or returns. So of a call only the
 * beginning is told at first, and its end when what is left fits the next segment, for which there is memory. That may
 * be early by the time that part of a segment waits, but the end is never told of what was not sent.
 */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(http_send, struct sock *sk, struct msghdr *msg, struct sk_buff___length *queued, int size_goal)
{
	struct source source = {};
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u64 skip = msg->msg_iter.iov_offset;
	__u64 length = msg->msg_iter.count;
	__s64 room = size_goal;
	bool ending;

	if (!tcp || !length || is_wrapped(tcp))
		return 0;
	if (((struct sock___memory *)sk)->sk_wmem_queued >= sk->sk_sndbuf) {
		__u32 used = queued ? queued->len
				    : 0; /* the verifier of some kernels takes it for never NULL; it reads 0 then */

		room = used ? size_goal - (__s64)used : 0;
		if (room <= 0)
			return 0; /* nothing moves now */
	}
	ending = (__s64)length <= room;
	if (length > 0x7fffffff)
		length = 0x7fffffff;
	if (msg->msg_iter.iter_type == ITER_UBUF) {
		source.base = msg->msg_iter.ubuf + skip;
		source.size = length;
	} else if (msg->msg_iter.iter_type == ITER_IOVEC) {
		struct iovec segment;

		if (bpf_probe_read_kernel(&segment, sizeof(segment), msg->msg_iter.__iov))
			return 0;
		source.base = segment.iov_base + skip;
		source.size = segment.iov_len - skip;
		if (msg->msg_iter.nr_segs > 1) {
			source.more = msg->msg_iter.__iov + 1;
			source.more_count = msg->msg_iter.nr_segs - 1;
			source.more_in_kernel = true;
		}
	}
	return transferred(ctx, sk, tcp, &source, MESSAGE_SENT, tcp->write_seq, length, ending);
}

/* sock:sock_recv_length (6.3): after bytes were given to the process. */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(http_receive, struct sock *sk, int received, int flags)
{
	struct syscall_buffer buffer;
	struct source source = {};
	struct tcp_sock *tcp;

	if (received <= 0 || sk->sk_protocol != IPPROTO_TCP || flags & MSG_PEEK)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || is_wrapped(tcp))
		return 0;
	/* A thread of the kernel is in no system call. */
	if (!(flags & MSG_TRUNC) && !(bpf_get_current_task_btf()->flags & (PF_KTHREAD | PF_IO_WORKER)) &&
	    syscall_receive_buffer(&buffer)) {
		source.base = buffer.base;
		source.size = received;
		if (buffer.iovec) {
			struct iovec segment;

			if (!bpf_probe_read_user(&segment, sizeof(segment), buffer.iovec)) {
				source.base = segment.iov_base;
				source.size = segment.iov_len;
				if (source.size < received)
					source.more = buffer.iovec + 1;
			} else {
				source.size = 0;
			}
		}
	}
	return transferred(ctx, sk, tcp, &source, MESSAGE_RECEIVED, tcp_sequence_read(tcp) - received, received, true);
}

/* The offset after the last byte that was sent. snd_nxt also passes a FIN, which is no byte. */
static __always_inline __u32 end_of_sent(struct tcp_sock *tcp, struct http_socket *socket)
{
	__u32 end = tcp->snd_nxt - socket->first_sequence[MESSAGE_SENT];

	return end - (end == (__u32)(tcp->bytes_sent - tcp->bytes_retrans) + 1);
}

/*
 * tcp:tcp_destroy_sock: the socket goes, and with it what was not answered. How far its streams went tells what was not
 * told of, or received in ways that are not read (a splice to a pipe).
 */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(http_end, struct sock *sk)
{
	struct http_socket *socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	struct message message;
	struct tcp_sock *tcp;

	if (!socket)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	begin_message(&message, MESSAGE_RECEIVED);
	describe_socket(&message, tcp);
	message.kind = MESSAGE_END;
	message.offset = end_of_sent(tcp, socket);
	message.length = next_offset(tcp, socket, MESSAGE_RECEIVED);
	message.error = sk->sk_err;
	if (socket->protocol == PROTOCOL_TLS)
		untie_tls(message.cookie);
	send_message(ctx, &message, sizeof(message));
	return 0;
}

/* In a library for TLS, where user space says: see tls_event. */
SEC("uprobe/tls")
int http_tls(void *ctx)
{
	__u64 site = bpf_get_attach_cookie(ctx);
	__u8 event = site & ((1 << TLS_EVENT_BITS) - 1);

	switch (event) {
	case TLS_READ_CALL:
		return tls_read(ctx, site);
	case TLS_READ_RETURN:
		return tls_read_return(ctx, site);
	case TLS_WRITE:
		return tls_write(ctx, site);
	case TLS_ERROR_QUERY:
		return tls_error_query(ctx, site);
	}
	return 0;
}

SEC("uprobe/go_tls")
int http_go_tls(void *ctx)
{
	__u64 site = bpf_get_attach_cookie(ctx);

	return go_tls(ctx, site, (site & ((1 << TLS_EVENT_BITS) - 1)) == TLS_GO_READ ? MESSAGE_RECEIVED : MESSAGE_SENT);
}

/* At the begin of net/http.(*persistConn).roundTrip, whose receiver is the first argument. */
SEC("uprobe/go_client")
int http_go_client(struct pt_regs___goroutine *ctx)
{
	return note_go_caller(first_argument(ctx), goroutine_address(ctx), goroutine_stack(ctx));
}

/* Where net/http and golang.org/x/net/http2 read and write header blocks: see go_table_event. */
SEC("uprobe/go_tables")
int http_go_tables(struct pt_regs___goroutine *ctx)
{
	return go_table(ctx, bpf_get_attach_cookie(ctx));
}
