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
#define MAX_SEGMENTS   16   /* of a call that are looked at for a head, and of one that receives for its end */
#define TAIL_SEGMENTS  8    /* of a call that sends, at its end */

#define MSG_PEEK  0x02
#define MSG_TRUNC 0x20

#define PF_IO_WORKER 0x00000010

#define EFAULT 14

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
	__u64 tail;   /* the last bytes of the call, at most 8, in the order of the stream from the lowest; 0: not known
		       */
	__u32 offset; /* of the first byte in its direction's stream, modulo 2^32; at the end: after all bytes sent */
	__u32 length; /* how many bytes the call moved, or is about to move for certain; at the end: the offset after
		       * all bytes received */
	__s32 error;  /* at the end: sk_err; else -EFAULT where the first bytes are in memory that cannot be read */
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

/* A socket that has carried a head, or of which a call was shorter than what tells, and may have begun one. By
 * direction. */
struct http_socket {
	__u64 prefix[2]; /* these bytes of the last calls: a head may come in small pieces */
	__u32 prefix_length[2];
	__u32 prefix_end[2];	 /* the offset after them */
	__u32 first_sequence[2]; /* where the stream begins */
	__u32 capture_left[2];	 /* what may still belong to a head that was not whole */
	__u32 told;		 /* the offset up to which was told of what is sent */
	bool recognized;	 /* there was a head */
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
	const void *base; /* the first segment; what of it was moved before is left out */
	__u64 size;
	const struct iovec *more; /* the segments after it, or NULL */
	bool more_in_kernel;	  /* the kernel has copied the list of segments */
	__u32 more_count;	  /* of more, where the kernel has copied it */
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

/* Whether a pattern of a size begins with these bytes, fewer than eight, or they with it. */
static __always_inline bool agrees(__u64 bytes, __u32 count, __u64 pattern, __u32 size)
{
	__u32 compared = count < size ? count : size;

	return !((bytes ^ pattern) & ((1ULL << (compared & 7) * 8) - 1));
}

#define TEXT(a, b, c, d, e, f, g) ((__u64)WORD(e, f, g, 0) << 32 | WORD(a, b, c, d))

/* Whether these bytes, fewer than eight, may go on as looks_like_head asks for. */
static __always_inline bool may_begin_head(__u64 bytes, __u32 count)
{
	switch ((__u8)bytes) {
	case 'H':
		return agrees(bytes, count, TEXT('H', 'T', 'T', 'P', '/', '1', '.'), 7) ||
		       agrees(bytes, count, TEXT('H', 'E', 'A', 'D', ' ', 0, 0), 5);
	case 'G':
		return agrees(bytes, count, TEXT('G', 'E', 'T', ' ', 0, 0, 0), 4);
	case 'P':
		return agrees(bytes, count, TEXT('P', 'O', 'S', 'T', ' ', 0, 0), 5) ||
		       agrees(bytes, count, TEXT('P', 'U', 'T', ' ', 0, 0, 0), 4) ||
		       agrees(bytes, count, TEXT('P', 'A', 'T', 'C', 'H', ' ', 0), 6);
	case 'D':
		return agrees(bytes, count, TEXT('D', 'E', 'L', 'E', 'T', 'E', ' '), 7);
	case 'O':
		return agrees(bytes, count, TEXT('O', 'P', 'T', 'I', 'O', 'N', 'S'), 7);
	case 'C':
		return agrees(bytes, count, TEXT('C', 'O', 'N', 'N', 'E', 'C', 'T'), 7);
	case 'T':
		return agrees(bytes, count, TEXT('T', 'R', 'A', 'C', 'E', ' ', 0), 6);
	}
	return false;
}

/* Reads the entry of source->more at an index. */
static __always_inline bool read_segment(struct source *source, __u32 index, struct iovec *segment)
{
	if (source->more_in_kernel)
		return index < source->more_count &&
		       !bpf_probe_read_kernel(segment, sizeof(*segment), source->more + index);
	return !bpf_probe_read_user(segment, sizeof(*segment), source->more + index);
}

/*
 * The functions that walk over segments are not inlined and not static: the verifier then looks at each of them once,
 * and not again for all that may have gone before.
 */

/* Reads the first eight bytes of a call, or all of one that has fewer. Returns how many; 0: they cannot be read. */
__noinline __u32 first_bytes(struct source *source, __u32 length, __u64 *first)
{
	__u32 wanted = length < sizeof(*first) ? length : sizeof(*first);
	const void *base;
	__u64 whole = 0;
	__u64 size;
	__u32 have = 0;

	if (!source || !first)
		return 0;
	base = source->base;
	size = source->size;
	if (wanted == sizeof(*first) && size >= sizeof(*first))
		return bpf_probe_read_user(first, sizeof(*first), base) ? 0 : sizeof(*first);
	for (__u32 segment = 0; segment < MAX_SEGMENTS; segment++) {
		__u32 part = (wanted - have < size ? wanted - have : size) & 7;
		struct iovec next;

		if (part) {
			__u64 bytes = 0;

			if (bpf_probe_read_user(&bytes, part, base))
				return 0;
			whole |= bytes << (have & 7) * 8;
			have += part;
		}
		if (have >= wanted || !source->more)
			break;
		if (!read_segment(source, segment, &next))
			break;
		base = next.iov_base;
		size = next.iov_len;
	}
	*first = whole;
	return have == wanted ? have : 0;
}

/* Copies the first bytes of a call: up to length of them, after those that are there already. Returns where they end.
 */
__noinline __u32 capture(struct source *source, struct captured_message *captured, __u32 have, __u32 length)
{
	const void *base;
	__u64 size;

	if (!source || !captured)
		return 0;
	base = source->base;
	size = source->size;
	for (__u32 segment = 0; segment < MAX_SEGMENTS && have < length; segment++) {
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
			if (bpf_probe_read_user(captured->data + at, part, base))
				break;
			have += part;
		}
		if (have >= length || !source->more)
			break;
		if (!read_segment(source, segment, &next))
			break;
		base = next.iov_base;
		size = next.iov_len;
	}
	return have;
}

/* Appends bytes to a tail: the last eight bytes, in the order of the stream from the lowest. */
static __always_inline __u64 append(__u64 tail, const void *base, __u64 size)
{
	__u32 few = size & 7;
	__u64 bytes = 0;

	if (size >= sizeof(bytes)) {
		if (bpf_probe_read_user(&bytes, sizeof(bytes), base + size - sizeof(bytes)))
			return 0;
		return bytes;
	}
	if (!few)
		return tail;
	if (bpf_probe_read_user(&bytes, few, base))
		return 0;
	return tail >> few * 8 | bytes << (8 - few) * 8;
}

/* What message.tail has of a call of length bytes. */
static __always_inline __u64 tail_of(__u64 tail, __u32 length)
{
	return length < sizeof(tail) ? tail >> (8 - (length & 7)) * 8 : tail;
}

/* The tail of a call that sends all that it has left, length bytes. */
__noinline __u64 tail_sent(struct source *source, __u32 length)
{
	__u32 skipped = 0;
	__u64 seen = 0;
	__u64 tail = 0;

	if (!source || !length)
		return 0;
	if (source->more_count < TAIL_SEGMENTS) {
		tail = append(tail, source->base, source->size);
		seen = source->size;
	} else {
		skipped = source->more_count - TAIL_SEGMENTS;
	}
	for (__u32 segment = 0; segment < TAIL_SEGMENTS && segment < source->more_count; segment++) {
		struct iovec next;

		if (!read_segment(source, skipped + segment, &next))
			return 0;
		tail = append(tail, next.iov_base, next.iov_len);
		seen += next.iov_len;
	}
	return seen < sizeof(tail) && seen < length ? 0 : tail_of(tail, length);
}

/* The tail of a call that has received length bytes. */
__noinline __u64 tail_received(struct source *source, __u32 length)
{
	__u32 left = length;
	const void *base;
	__u64 tail = 0;
	__u64 size;

	if (!source || !length)
		return 0;
	base = source->base;
	size = source->size;
	for (__u32 segment = 0; segment < MAX_SEGMENTS; segment++) {
		struct iovec next;

		if (size > left)
			size = left;
		left -= size;
		if (left < sizeof(tail))
			tail = append(tail, base, size);
		if (!left)
			return tail_of(tail, length);
		if (!source->more || !read_segment(source, segment, &next))
			break;
		base = next.iov_base;
		size = next.iov_len;
	}
	return 0;
}

static __always_inline void describe(struct message_head *head, struct tcp_sock *tcp, struct http_socket *socket)
{
	struct inet_sock *inet = &tcp->inet_conn.icsk_inet;
	struct sock_common *common = &inet->sk.__sk_common;
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;

	head->start_boot_ns = leader->start_boottime;
	head->cgroup_id = tcp_cgroup_id(&inet->sk);
	head->pid = task->tgid;
	head->tid = task->pid;
	__builtin_memcpy(head->comm, leader->comm, sizeof(head->comm));
	head->family = common->skc_family;
	__builtin_memset(head->local_address, 0, 16);
	__builtin_memset(head->peer_address, 0, 16);
	tcp_addresses(common, head->local_address, head->peer_address);
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

/* Sends where bytes are. */
static __always_inline void report_place(void *ctx, struct tcp_sock *tcp, __u8 direction, __u32 offset, __u32 length,
					 __u64 tail, bool unreadable)
{
	struct message message;

	fill(&message, tcp, MESSAGE_DATA, direction, offset, length);
	message.tail = tail;
	if (unreadable)
		message.error = -EFAULT;
	ring_output(ctx, &message, sizeof(message));
}

/*
 * Sends a call's first bytes, in which a head begins or goes on. Of a call that is not ending, no more is told than
 * what was captured, and that there is more.
 */
static __always_inline void report_bytes(void *ctx, struct tcp_sock *tcp, struct http_socket *socket,
					 struct source *source, __u8 kind, __u8 direction, __u32 offset, __u32 length,
					 __u32 prefix_length, __u32 limit, bool ending, __u64 tail)
{
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
	fill(&captured->message, tcp, kind, direction, offset, length);
	captured->message.tail = tail;
	captured->message.captured = have;
	describe(&captured->head, tcp, socket);
	ring_output(ctx, captured, sizeof(struct message) + sizeof(struct message_head) + have);
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
 * they are fewer than eight.
 */
static __always_inline bool begins_head(struct http_socket *socket, __u8 direction, __u32 offset, __u64 first,
					__u32 few, __u32 *prefix_length)
{
	__u32 kept = socket->prefix_length[direction] & 7;

	socket->prefix_length[direction] = 0;
	if (kept && few && socket->prefix_end[direction] == offset) {
		__u64 whole = socket->prefix[direction] | first << kept * 8;

		if (kept + few >= sizeof(whole)) {
			if (looks_like_head(whole)) {
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

/* A call that moves length bytes, the first of which has the sequence number; if it is not ending, then further ones.
 */
static __always_inline int transferred(void *ctx, struct sock *sk, struct tcp_sock *tcp, struct source *source,
				       __u8 direction, __u32 sequence, __u32 length, bool ending)
{
	struct http_socket *socket = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	__u32 prefix_length = 0;
	bool head = false;
	__u64 first = 0;
	__u64 tail = 0;
	__u32 offset;
	__u32 few;

	few = first_bytes(source, length, &first);
	if (!socket) {
		if (few == sizeof(first) ? !looks_like_head(first) : !few || !may_begin_head(first, few))
			return 0;
		if (bpf_get_current_pid_tgid() >> 32 == self_pid)
			return 0;
		socket = begin(sk, tcp);
		if (!socket)
			return 0;
		socket->told = sequence - socket->first_sequence[MESSAGE_SENT];
		if (direction == MESSAGE_RECEIVED)
			socket->told = tcp->write_seq - socket->first_sequence[MESSAGE_SENT];
	}
	offset = sequence - socket->first_sequence[direction];
	if (direction == MESSAGE_SENT && (__s32)(offset + length - socket->told) <= 0)
		return 0; /* the same call as before, in a further segment */

	if (begins_head(socket, direction, offset, first, few, &prefix_length))
		socket->recognized = head = true;
	if (!socket->recognized) {
		if (direction == MESSAGE_SENT)
			socket->told = offset + length;
		if (!socket->prefix_length[MESSAGE_SENT] && !socket->prefix_length[MESSAGE_RECEIVED])
			bpf_sk_storage_delete(&sockets, sk);
		return 0;
	}
	if (!head && !ending && !socket->capture_left[direction])
		return 0;
	if (direction == MESSAGE_SENT) {
		if (offset != socket->told) /* these went with segments that were not told of one by one */
			report_place(ctx, tcp, direction, socket->told, offset - socket->told, 0, false);
		socket->told = offset + length;
	}
	if (ending)
		tail = direction == MESSAGE_SENT ? tail_sent(source, length) : tail_received(source, length);
	if (head)
		report_bytes(ctx, tcp, socket, source, MESSAGE_HEAD, direction, offset - prefix_length,
			     length + prefix_length, prefix_length, head_bytes, ending, tail);
	else if (socket->capture_left[direction])
		report_bytes(ctx, tcp, socket, source, MESSAGE_DATA, direction, offset - prefix_length,
			     length + prefix_length, prefix_length, socket->capture_left[direction], ending, tail);
	else
		report_place(ctx, tcp, direction, offset - prefix_length, length + prefix_length,
			     prefix_length ? socket->prefix[direction] : tail, !few && source->size);
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
	fill(&message, tcp, MESSAGE_END, MESSAGE_RECEIVED, end_of_sent(tcp, socket),
	     tcp_sequence_read(tcp) - socket->first_sequence[MESSAGE_RECEIVED]);
	message.error = sk->sk_err;
	ring_output(ctx, &message, sizeof(message));
	return 0;
}
