// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * The HTTP probe: which messages processes send and receive on TCP sockets.
 *
 * The kernel side recognizes the first bytes of a message, copies what its head needs, and says where in the stream
 * each call's bytes are. Everything else (heads, bodies, pairing) is done in user space, from these positions.
 *
 *   send, receive --> first bytes of a message? --> head on the ring, with the bytes
 *                 \-> socket known to carry HTTP --> data on the ring, without
 *   socket freed  --> end on the ring
 *
 * A socket that carries something else has no state here: each of its calls costs one look at eight bytes.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "loss.h"
#include "ring.h"
#include "syscall.h"
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The collector's own process: it does not observe itself. */
const volatile __u32 self_pid = 0;
/* How much of a message is copied at most, for its head. */
const volatile __u32 head_bytes = 512;

#define MAX_HEAD_BYTES 4096 /* a power of two */
#define MAX_SEGMENTS   4    /* of a call that are looked at for a head */

#define MSG_PEEK  0x02
#define MSG_TRUNC 0x20

enum message_kind {
	MESSAGE_HEAD = 1, /* looks like the first bytes of a request or response */
	MESSAGE_DATA,	  /* further bytes on a socket that has carried a head */
	MESSAGE_END,	  /* the socket is freed */
};

enum message_direction {
	MESSAGE_RECEIVED,
	MESSAGE_SENT,
};

/* One call that moved bytes. Where captured is not 0, a message_head follows, and then the bytes. */
struct message {
	__u64 time_ns;
	__u64 cookie;
	__u64 tail;    /* the last bytes of the call, of at most 8; only where they are not captured */
	__u32 offset;  /* of the first byte in its direction's stream, modulo 2^32 */
	__u32 length;  /* how many bytes the call moved, or tried to send */
	__s32 error;   /* at the end: sk_err */
	__u32 srtt_us; /* 0: not known */
	__u32 retransmits;
	__u16 captured;
	__u8 kind;
	__u8 direction;
};

struct message_head {
	__u64 start_boot_ns; /* task_struct.start_boottime of the process */
	__u64 cgroup_id;
	__u32 pid; /* thread group id in the initial namespace */
	__u32 tid;
	__u8 comm[16];
	__u8 local_address[16]; /* as the socket has it: the first four bytes for AF_INET */
	__u8 peer_address[16];
	__u32 local_sequence; /* first sequence number after the SYN, each way */
	__u32 remote_sequence;
	__u16 local_port;
	__u16 peer_port;
	__u16 family;
	__u8 reserved[2];
};

struct captured_message {
	struct message message;
	struct message_head head;
	__u8 data[2 * MAX_HEAD_BYTES]; /* twice: a bound that the verifier can follow */
};

_Static_assert(sizeof(struct message) % 8 == 0, "a ring keeps its events aligned to 8 bytes");
_Static_assert(__builtin_offsetof(struct captured_message, head) == sizeof(struct message), "no padding between them");
_Static_assert(__builtin_offsetof(struct captured_message, data) ==
		       sizeof(struct message) + sizeof(struct message_head),
	       "no padding between them");

/* Type information is kept for what a global refers to: these are for the Go bindings alone. */
const struct message *keep_message __attribute__((unused));
const struct message_head *keep_message_head __attribute__((unused));
const enum message_kind *keep_message_kind __attribute__((unused));
const enum message_direction *keep_message_direction __attribute__((unused));

/* A socket that has carried a head. */
struct http_socket {
	__u32 first_sequence[2]; /* by direction: where its stream begins */
	__u32 capture_left[2];	 /* by direction: what may still belong to a head that was not whole */
	__u64 prefix; /* bytes of the last receive, where those were fewer than 8: a reader may take one first */
	__u32 prefix_length;
};

/* Owner: the kernel, with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct http_socket);
} sockets SEC(".maps");

/* Where a head is put together: one for each direction, used by one program each. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct captured_message);
} scratch SEC(".maps");

/* The bytes of a call, in the memory of the process. */
struct source {
	const void *base; /* the first segment */
	__u64 size;
	const struct iovec *more; /* the segments after it, or NULL */
	bool more_in_kernel;	  /* the kernel has copied the list of segments */
	struct iovec last;	  /* the last segment, where it is known: base not NULL */
};

#define WORD(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)

static __always_inline bool begins_target(__u8 byte)
{
	return byte == '/' || byte == 'h' || byte == 'H' || byte == '*';
}

/* Whether these are the first eight bytes of an HTTP/1 message. */
static __always_inline bool looks_like_head(__u64 first)
{
	__u32 rest = first >> 32;

	switch ((__u32)first) {
	case WORD('H', 'T', 'T', 'P'):
		return (rest & 0xffffff) == WORD('/', '1', '.', 0);
	case WORD('G', 'E', 'T', ' '):
	case WORD('P', 'U', 'T', ' '):
		return begins_target(rest);
	case WORD('P', 'O', 'S', 'T'):
	case WORD('H', 'E', 'A', 'D'):
		return (__u8)rest == ' ' && begins_target(rest >> 8);
	case WORD('P', 'A', 'T', 'C'):
		return (rest & 0xffff) == WORD('H', ' ', 0, 0) && begins_target(rest >> 16);
	case WORD('T', 'R', 'A', 'C'):
		return (rest & 0xffff) == WORD('E', ' ', 0, 0) && begins_target(rest >> 16);
	case WORD('D', 'E', 'L', 'E'):
		return (rest & 0xffffff) == WORD('T', 'E', ' ', 0) && begins_target(rest >> 24);
	case WORD('O', 'P', 'T', 'I'):
		return rest == WORD('O', 'N', 'S', ' ');
	case WORD('C', 'O', 'N', 'N'):
		return rest == WORD('E', 'C', 'T', ' ');
	}
	return false;
}

/* Copies the first bytes of a call: up to length of them, after what data holds already. Returns where they end. */
static __always_inline __u32 capture(struct source *source, __u8 *data, __u32 have, __u32 length)
{
	const void *base = source->base;
	__u64 size = source->size;

	for (int segment = 0; segment < MAX_SEGMENTS && have < length; segment++) {
		struct iovec next;
		__u32 at = have;
		__u32 part = length - have;

		if (part > size)
			part = size;
		if (part) {
			/* Bounds that the compiler cannot see through and the verifier can. */
			part -= 1;
			asm volatile("%0 &= %2\n\t%1 &= %2" : "+r"(part), "+r"(at) : "i"(MAX_HEAD_BYTES - 1));
			part += 1;
			if (bpf_probe_read_user(data + at, part, base))
				break;
			have += part;
		}
		if (have >= length || !source->more)
			break;
		if (source->more_in_kernel ? bpf_probe_read_kernel(&next, sizeof(next), source->more + segment)
					   : bpf_probe_read_user(&next, sizeof(next), source->more + segment))
			break;
		base = next.iov_base;
		size = next.iov_len;
	}
	return have;
}

/* The last bytes of a call, of at most eight, in the order of the stream from the lowest byte. */
static __always_inline __u64 tail_of(struct source *source, __u32 length)
{
	const void *base = source->base;
	__u64 size = source->size;
	__u64 tail = 0;

	if (source->last.iov_base) {
		base = source->last.iov_base;
		size = source->last.iov_len;
	} else if (source->more) {
		return 0;
	} else if (size > length) {
		size = length;
	}
	if (size < sizeof(tail))
		return 0;
	bpf_probe_read_user(&tail, sizeof(tail), base + size - sizeof(tail));
	return tail;
}

static __always_inline void describe(struct message_head *head, struct tcp_sock *tcp, struct http_socket *socket)
{
	struct inet_sock *inet = &tcp->inet_conn.icsk_inet;
	struct sock_common *common = &inet->sk.__sk_common;
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;

	head->start_boot_ns = leader->start_boottime;
	head->cgroup_id = 0;
	if (bpf_core_field_exists(inet->sk.sk_cgrp_data.cgroup))
		head->cgroup_id = inet->sk.sk_cgrp_data.cgroup->kn->id;
	head->pid = task->tgid;
	head->tid = task->pid;
	__builtin_memcpy(head->comm, leader->comm, sizeof(head->comm));
	head->family = common->skc_family;
	if (head->family == AF_INET6) {
		__builtin_memcpy(head->local_address, &common->skc_v6_rcv_saddr, 16);
		__builtin_memcpy(head->peer_address, &common->skc_v6_daddr, 16);
	} else {
		__builtin_memset(head->local_address, 0, 16);
		__builtin_memset(head->peer_address, 0, 16);
		*(__be32 *)head->local_address = common->skc_rcv_saddr;
		*(__be32 *)head->peer_address = common->skc_daddr;
	}
	head->local_port = bpf_ntohs(inet->inet_sport);
	head->peer_port = bpf_ntohs(common->skc_dport);
	head->local_sequence = socket->first_sequence[MESSAGE_SENT];
	head->remote_sequence = socket->first_sequence[MESSAGE_RECEIVED];
	head->reserved[0] = head->reserved[1] = 0;
}

static __always_inline void fill(struct message *message, struct tcp_sock *tcp, __u8 kind, __u8 direction, __u32 offset,
				 __u32 length)
{
	message->time_ns = bpf_ktime_get_ns();
	message->cookie = bpf_get_socket_cookie(tcp);
	message->tail = 0;
	message->offset = offset;
	message->length = length;
	message->error = 0;
	message->srtt_us = tcp->srtt_us >> 3;
	message->retransmits = tcp->total_retrans;
	message->captured = 0;
	message->kind = kind;
	message->direction = direction;
}

/* Sends a call's first bytes, in which a head begins or goes on. */
static __always_inline void report_bytes(void *ctx, struct tcp_sock *tcp, struct http_socket *socket,
					 struct source *source, __u8 kind, __u8 direction, __u32 offset, __u32 length,
					 __u32 prefix_length, __u32 limit)
{
	__u32 which = direction;
	struct captured_message *captured = bpf_map_lookup_elem(&scratch, &which);
	__u32 wanted = length < limit ? length : limit;
	__u32 have = 0;
	__u32 end;

	if (!captured)
		return;
	fill(&captured->message, tcp, kind, direction, offset, length);
	describe(&captured->head, tcp, socket);
	if (prefix_length) {
		*(__u64 *)captured->data = socket->prefix;
		have = prefix_length;
	}
	have = capture(source, captured->data, have, wanted);
	if (have > MAX_HEAD_BYTES)
		have = MAX_HEAD_BYTES;
	captured->message.captured = have;

	/* A head that ends here is whole. One that does not may go on in the next call, unless this has its body. */
	socket->capture_left[direction] = 0;
	end = (have - 4) & (MAX_HEAD_BYTES - 1);
	if (have < length)
		captured->message.tail = tail_of(source, length - prefix_length);
	else if (have < limit && !(have >= 4 && *(__u32 *)(captured->data + end) == WORD('\r', '\n', '\r', '\n')))
		socket->capture_left[direction] = limit - have;
	ring_output(ctx, captured, sizeof(struct message) + sizeof(struct message_head) + have);
}

static __always_inline struct http_socket *begin(struct sock *sk, struct tcp_sock *tcp)
{
	struct http_socket *socket = bpf_sk_storage_get(&sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!socket) {
		count_loss(LOSS_STORAGE_FULL);
		return NULL;
	}
	socket->first_sequence[MESSAGE_SENT] = tcp_first_sequence_sent(tcp, !tcp_was_accepted(sk));
	socket->first_sequence[MESSAGE_RECEIVED] = tcp_first_sequence_received(tcp);
	return socket;
}

/* A call that moves length bytes, the first of which has the sequence number. */
static __always_inline int transferred(void *ctx, struct sock *sk, struct tcp_sock *tcp, struct source *source,
				       __u8 direction, __u32 sequence, __u32 length)
{
	struct http_socket *socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	__u32 prefix_length = 0;
	__u32 offset;
	__u64 first = 0;
	__u64 readable = source->size < length ? source->size : length;
	struct message message;

	if (readable >= sizeof(first)) {
		if (bpf_probe_read_user(&first, sizeof(first), source->base))
			readable = 0;
	} else if (!socket) {
		return 0;
	} else if (readable) {
		__u32 few = readable & 7;

		if (!few || bpf_probe_read_user(&first, few, source->base))
			readable = 0;
	}
	if (!socket) {
		if (!looks_like_head(first))
			return 0;
		if (bpf_get_current_pid_tgid() >> 32 == self_pid)
			return 0;
		socket = begin(sk, tcp);
		if (!socket)
			return 0;
	}
	offset = sequence - socket->first_sequence[direction];

	if (direction == MESSAGE_RECEIVED) {
		prefix_length = socket->prefix_length & 7;
		socket->prefix_length = 0;
		if (readable && length < sizeof(first)) {
			socket->prefix = first;
			socket->prefix_length = length;
		}
		if (prefix_length) {
			__u64 whole = socket->prefix | first << prefix_length * 8;

			if (length < sizeof(first) || !looks_like_head(whole))
				prefix_length = 0;
			else
				first = whole;
		}
	}
	if (looks_like_head(first)) {
		report_bytes(ctx, tcp, socket, source, MESSAGE_HEAD, direction, offset - prefix_length,
			     length + prefix_length, prefix_length, head_bytes);
		return 0;
	}
	if (socket->capture_left[direction]) {
		report_bytes(ctx, tcp, socket, source, MESSAGE_DATA, direction, offset, length, 0,
			     socket->capture_left[direction]);
		return 0;
	}
	fill(&message, tcp, MESSAGE_DATA, direction, offset, length);
	message.tail = tail_of(source, length);
	ring_output(ctx, &message, sizeof(message));
	return 0;
}

/*
 * tcp:tcp_sendmsg_locked (6.16): before bytes are taken from the process, once for each segment of the socket's queue.
 * That is before the peer can answer, so a request is always told of before its response.
 */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(http_send, struct sock *sk, struct msghdr *msg)
{
	struct source source = {};
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u64 skip = msg->msg_iter.iov_offset;
	__u64 length = msg->msg_iter.count;

	if (!tcp || !length)
		return 0;
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
			source.more_in_kernel = true;
			bpf_probe_read_kernel(&source.last, sizeof(source.last),
					      msg->msg_iter.__iov + (msg->msg_iter.nr_segs - 1));
		}
	}
	return transferred(ctx, sk, tcp, &source, MESSAGE_SENT, tcp->write_seq, length);
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
	if (!tcp)
		return 0;
	if (!(flags & MSG_TRUNC) && syscall_receive_buffer(&buffer)) {
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
	return transferred(ctx, sk, tcp, &source, MESSAGE_RECEIVED, tcp->copied_seq - received, received);
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
