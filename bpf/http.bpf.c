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
#include "http/message.h"
#include "http/recognize.h"
#include "http/source.h"
#include "http/stream.h"
#include "loss.h"
#include "ring.h"
#include "syscall.h"
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The collector's own process: it does not observe itself. */
const volatile __u32 self_pid = 0;
/* How much of a message of HTTP/1 is copied at most, for its head. */
const volatile __u32 head_bytes = 512;

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

/*
 * Sends a call's first bytes, in which a head begins or goes on. Of a call that is not ending, no more is told than
 * what was captured, and that there is more.
 */
static __always_inline void report_bytes(void *ctx, struct carrier *carrier, struct source *source, __u8 kind,
					 __u8 direction, __u32 offset, __u32 length, __u32 prefix_length, __u32 limit,
					 bool ending, __u64 tail)
{
	struct http_socket *socket = carrier->socket;
	__u32 which = direction;
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
	fill(&captured->message, carrier->tcp, kind, direction, offset, length);
	captured->message.tail = tail;
	captured->message.captured = have;
	report_captured(ctx, carrier, captured);
}

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
			report_place(ctx, carrier, direction, socket->told, offset - socket->told, 0);
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
			     prefix_length ? socket->prefix[direction] : tail);
	return true;
}

/* A call that moves length bytes, the first of which has the sequence number; if it is not ending, then further ones.
 */
static __always_inline int transferred(void *ctx, struct sock *sk, struct tcp_sock *tcp, struct source *source,
				       __u8 direction, __u32 sequence, __u32 length, bool ending)
{
	struct carrier carrier = {.tcp = tcp, .socket = bpf_sk_storage_get(&sockets, sk, NULL, 0)};
	__u64 first = 0;
	__u32 offset;
	__u32 few;

	if (carrier.socket && carrier.socket->protocol == PROTOCOL_HTTP2)
		return follow_frames(ctx, &carrier, source, direction,
				     sequence - carrier.socket->first_sequence[direction], length);
	few = first_bytes(source, length, &first);
	if (!carrier.socket) {
		bool frames = few == sizeof(first) && looks_like_headers_frame(first);

		if (!frames && (few == sizeof(first) ? !looks_like_head(first) : !few || !may_begin_head(first, few)))
			return 0;
		if (bpf_get_current_pid_tgid() >> 32 == self_pid)
			return 0;
		carrier.socket = begin(sk, tcp);
		if (!carrier.socket)
			return 0;
		offset = sequence - carrier.socket->first_sequence[direction];
		if (frames) {
			join_frames(&carrier, direction, offset);
			return follow_frames(ctx, &carrier, source, direction, offset, length);
		}
		carrier.socket->told = sequence - carrier.socket->first_sequence[MESSAGE_SENT];
		if (direction == MESSAGE_RECEIVED)
			carrier.socket->told = tcp->write_seq - carrier.socket->first_sequence[MESSAGE_SENT];
	}
	offset = sequence - carrier.socket->first_sequence[direction];
	if (direction == MESSAGE_SENT && (__s32)(offset + length - carrier.socket->told) <= 0)
		return 0; /* the same call as before, in a further segment */
	if (!follow(ctx, &carrier, source, direction, offset, length, ending, first, few))
		bpf_sk_storage_delete(&sockets, sk);
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
	return transferred(ctx, sk, tcp, &source, MESSAGE_RECEIVED, tcp->copied_seq - received, received, true);
}

/* tcp:tcp_destroy_sock: the socket goes, and with it what was not answered. */
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
	fill(&message, tcp, MESSAGE_END, MESSAGE_RECEIVED, 0, 0);
	message.error = sk->sk_err;
	ring_output(ctx, &message, sizeof(message));
	return 0;
}
