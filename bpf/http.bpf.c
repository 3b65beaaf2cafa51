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
 * A socket that carries something else has no state here: each of its calls costs one look at eight bytes, and later
 * most cost not even that.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "http/frames.h"
#include "http/go_client.h"
#include "http/go_routes.h"
#include "http/go_streams.h"
#include "http/go_tables.h"
#include "http/http1.h"
#include "http/indirect.h"
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

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock___memory {
	int sk_wmem_queued;
};

struct inet_connection_sock___protocol {
	const void *icsk_ulp_ops;
};

#pragma clang attribute pop

/* Owner: the kernel, with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct http_socket);
} sockets SEC(".maps");

/* A socket that has carried much, of which nothing looked like the beginning of a message. */
struct other_socket {
	__u32 calls; /* since then */
	__u32 reserved;
};

/* Owner: the kernel, with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct other_socket);
} others SEC(".maps");

#define OTHER_SEGMENTS 32 /* received, before a socket is taken for one that carries something else */
#define OTHER_LOOKS    64 /* calls that are looked at after that: it may have been in the middle of a body */
#define OTHER_STRIDE   17 /* each such call later; a prime number, so that what alternates is met in turn */

/* Whether a socket without state is one that carries something else, and this call is not worth a look. */
static __always_inline bool is_other(struct sock *sk)
{
	struct other_socket *other = bpf_sk_storage_get(&others, sk, NULL, 0);

	return other && ++other->calls > OTHER_LOOKS && other->calls % OTHER_STRIDE;
}

/* A call on a socket without state did not look like HTTP. */
static __always_inline int pass(struct sock *sk, struct tcp_sock *tcp)
{
	if (tcp->segs_in >= OTHER_SEGMENTS)
		bpf_sk_storage_get(&others, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	return 0;
}

static __noinline struct http_socket *begin(struct sock *sk, struct tcp_sock *tcp)
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
	socket->cookie = bpf_get_socket_cookie(sk);
	return socket;
}

/* A call on a socket that carries TLS; its first byte has the sequence number. */
static __noinline int carried_tls(void *ctx, struct tcp_sock *tcp, struct http_socket *socket, __u8 direction,
				  __u32 sequence)
{
	if (must_describe(socket, bpf_get_current_pid_tgid() >> 32, bpf_ktime_get_ns())) {
		struct call call = {.scratch = direction};

		begin_message(&call.message, direction);
		describe_socket(&call.message, socket, tcp);
		call.offset = sequence - socket->first_sequence[direction];
		describe_now(ctx, tcp, socket, &call);
	}
	note_tls(socket, tcp, direction);
	return 0;
}

/* A call that moves length bytes, the first of which has the sequence number; if it is not ending, then further ones.
 */
static __always_inline int transferred(void *ctx, struct sock *sk, struct tcp_sock *tcp, struct http_socket *socket,
				       struct source *source, __u8 direction, __u32 sequence, __u32 length, bool ending)
{
	struct call call = {.length = length, .scratch = direction, .ending = ending};
	bool tls = false;
	bool frames = false;
	__u32 pid;

	call.message.direction = direction;
	if (socket) {
		call.offset = sequence - socket->first_sequence[direction];
		if (socket->protocol < PROTOCOL_HTTP2) {
			if (direction == MESSAGE_SENT && (__s32)(call.offset + length - socket->told) <= 0)
				return 0; /* the same call as before, in a further segment */
			look_at_head(socket, source, &call);
		}
	} else {
		call.few = first_bytes(source, length, &call.first);
		tls = follow_tls && looks_like_tls(call.first, call.few);
		frames = call.few == sizeof(call.first) && looks_like_headers_frame(call.first);
		if (!tls && !frames &&
		    (call.few == sizeof(call.first) ? !looks_like_head(call.first)
						    : !call.few || !may_begin_head(call.first, call.few)))
			return pass(sk, tcp);
		if (bpf_get_current_pid_tgid() >> 32 == self_pid)
			return pass(sk, tcp);
		socket = begin(sk, tcp);
		if (!socket)
			return 0;
		socket->told = direction == MESSAGE_SENT ? sequence - socket->first_sequence[MESSAGE_SENT]
							 : next_offset(tcp, socket, MESSAGE_SENT);
		socket->received = direction == MESSAGE_RECEIVED ? sequence - socket->first_sequence[MESSAGE_RECEIVED]
								 : next_offset(tcp, socket, MESSAGE_RECEIVED);
		call.offset = sequence - socket->first_sequence[direction];
	}
	if (direction == MESSAGE_RECEIVED)
		note_received(socket, call.offset, length);
	if (tls) {
		socket->protocol = PROTOCOL_TLS;
		return carried_tls(ctx, tcp, socket, direction, sequence);
	}
	call.answers_at = next_offset(tcp, socket, !direction);
	pid = begin_message(&call.message, direction);
	describe_socket(&call.message, socket, tcp);
	if (frames)
		join_frames(socket, &call);
	else if (socket->protocol < PROTOCOL_HTTP2 && !recognize(socket, &call)) {
		if (!socket->prefix_length[MESSAGE_SENT] && !socket->prefix_length[MESSAGE_RECEIVED])
			bpf_sk_storage_delete(&sockets, sk);
		return 0;
	}
	if (call.head && direction == MESSAGE_SENT && (__u32)call.first != WORD('H', 'T', 'T', 'P'))
		take_go_caller(&socket->go, (__u64)sk, &call.message);
	describe(ctx, tcp, socket, &call, pid);
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
int BPF_PROG(http_send, struct sock *sk, struct msghdr *msg, struct sk_buff *queued, int size_goal)
{
	struct tcp_sock *tcp = tcp_of(sk);
	__u64 skip = msg->msg_iter.iov_offset;
	__u64 length = msg->msg_iter.count;
	struct http_socket *socket;
	struct source source = {};
	__s64 room = size_goal;
	bool ending;

	if (!tcp || !length || is_wrapped(tcp))
		return 0;
	socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!socket && is_other(sk))
		return 0;
	if (((struct sock___memory *)sk)->sk_wmem_queued >= sk->sk_sndbuf) {
		__u32 used = queued ? queued->len
				    : 0; /* the verifier of some kernels takes it for never NULL; it reads 0 then */

		room = used ? size_goal - (__s64)used : 0;
		if (room <= 0)
			return 0; /* nothing moves now */
	}
	if (socket && socket->protocol == PROTOCOL_TLS)
		return carried_tls(ctx, tcp, socket, MESSAGE_SENT, tcp->write_seq);
	ending = (__s64)length <= room;
	if (length > 0x7fffffff)
		length = 0x7fffffff;
	if (msg->msg_iter.iter_type == ITER_UBUF) {
		source.base = msg->msg_iter.ubuf + skip;
		source.size = length;
	} else if (msg->msg_iter.iter_type == ITER_IOVEC) {
		const struct iovec *segment = msg->msg_iter.__iov;

		source.base = segment->iov_base + skip;
		source.size = segment->iov_len - skip;
		if (msg->msg_iter.nr_segs > 1) {
			source.more = msg->msg_iter.__iov + 1;
			source.more_count = msg->msg_iter.nr_segs - 1;
			source.more_in_kernel = true;
		}
	} else {
		source.nowhere = true;
		note_sent_unread();
	}
	return transferred(ctx, sk, tcp, socket, &source, MESSAGE_SENT, tcp->write_seq, length, ending);
}

/* sock:sock_recv_length (6.3): after bytes were given to the process. */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(http_receive, struct sock *sk, int received, int flags)
{
	struct http_socket *socket;
	struct source source = {};
	struct tcp_sock *tcp;
	__u32 sequence;

	if (received <= 0 || sk->sk_protocol != IPPROTO_TCP || flags & MSG_PEEK)
		return 0;
	tcp = tcp_of(sk);
	if (!tcp || is_wrapped(tcp))
		return 0;
	socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!socket && is_other(sk))
		return 0;
	sequence = tcp_sequence_read(tcp) - received;
	if (socket && socket->protocol == PROTOCOL_TLS) {
		note_received(socket, sequence - socket->first_sequence[MESSAGE_RECEIVED], received);
		return carried_tls(ctx, tcp, socket, MESSAGE_RECEIVED, sequence);
	}
	if (!find_received(ctx, &source, received)) {
		if (!socket || is_told_received(socket, sequence, received))
			return 0;
	}
	if (flags & MSG_TRUNC) { /* they were thrown away */
		__builtin_memset(&source, 0, sizeof(source));
		source.nowhere = true;
	}
	return transferred(ctx, sk, tcp, socket, &source, MESSAGE_RECEIVED, sequence, received, true);
}

/*
 * skb:skb_copy_datagram_iovec (its bytes can be read since 6.12): before a packet's bytes are copied to a process.
 * Attached where a program receives in a way that find_received does not know, see indirect.h.
 */
SEC("tp_btf/skb_copy_datagram_iovec")
int BPF_PROG(http_receive_packet, struct sk_buff *buffer, int length)
{
	struct http_socket *socket;
	struct packet *packet;
	struct bpf_dynptr bytes;
	struct tcp_sock *tcp;
	struct sock *sk;
	__u32 key = 0;

	sk = buffer->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP || length <= 0 || is_received_directly())
		return 0;
	sk = packet_socket(buffer);
	if (!sk)
		return 0;
	tcp = tcp_of(sk);
	packet = bpf_map_lookup_elem(&packets, &key);
	if (!tcp || !packet || is_wrapped(tcp) || !find_in_packet(tcp, buffer, length, packet))
		return 0;
	socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (socket ? is_told_received(socket, packet->sequence, length) : is_other(sk))
		return 0; /* it was looked at before, or is not to be */
	if (bpf_dynptr_from_skb(buffer, 0, &bytes) || !read_packet(&bytes, packet, socket))
		return 0;
	transferred(ctx, sk, tcp, socket, &packet->source, MESSAGE_RECEIVED, packet->sequence, packet->piece, true);
	if (packet->piece >= packet->length)
		return 0;
	socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (socket && socket->protocol == PROTOCOL_HTTP2)
		follow_packet(socket, tcp, &bytes, packet);
	return 0;
}

/* io_uring:io_uring_create: a program may be about to receive by io_uring. */
SEC("tp_btf/io_uring_create")
int BPF_PROG(http_uring)
{
	ask_for_packets(ctx);
	return 0;
}

/*
 * tcp:tcp_rcv_space_adjust: bytes were taken from a socket, also where no process has read them, such as by a splice to
 * a pipe. Attached where bytes were taken that nothing was told of, see indirect.h.
 */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(http_receive_moved, struct sock *sk)
{
	struct http_socket *socket;
	struct tcp_sock *tcp;

	if (is_received_directly())
		return 0;
	tcp = tcp_of(sk);
	socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (tcp && socket && socket->protocol == PROTOCOL_HTTP1 && !is_wrapped(tcp))
		report_moved(socket, tcp);
	return 0;
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
	describe_socket(&message, socket, tcp);
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
	case TLS_READ_END:
		return tls_read_end(ctx, site);
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

/* Where streams are served, and asked with: see go_stream_event. */
SEC("uprobe/go_streams")
int http_go_streams(struct pt_regs___goroutine *ctx)
{
	return go_stream(ctx, bpf_get_attach_cookie(ctx));
}

/* In net/http.(*ServeMux).ServeHTTP, where it has found who handles the request. */
SEC("uprobe/go_routes")
int http_go_routes(struct pt_regs___goroutine *ctx)
{
	return tell_go_route(ctx);
}

/* Where net/http and golang.org/x/net/http2 read and write header blocks: see go_table_event. */
SEC("uprobe/go_tables")
int http_go_tables(struct pt_regs___goroutine *ctx)
{
	return go_table(ctx, bpf_get_attach_cookie(ctx));
}
