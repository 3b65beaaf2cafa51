/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * TLS: what processes hand to a library before it is encrypted, and get from it after it was decrypted.
 *
 * User space places uprobes in the middle of a library's functions, and says with each where the arguments are there.
 * A library's connection is tied to the socket that carries it. OpenSSL: to the one on which the thread moves bytes
 * while it is in a call of the library; or, where the program moves the bytes itself, to the one from which the thread
 * has read right before the library. Go: to the descriptor in the connection.
 */
#ifndef EBPFRECEIVER_HTTP_TLS_H
#define EBPFRECEIVER_HTTP_TLS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "http/frames.h"
#include "http/go_socket.h"
#include "http/go_client.h"
#include "http/http1.h"
#include "http/message.h"
#include "http/recognize.h"
#include "http/source.h"
#include "http/stream.h"
#include "loss.h"

#define TLS_FIRST_BYTES 512 /* a power of two */

/* What a uprobe's site is. */
enum tls_event {
	TLS_READ_CALL = 1, /* connection, buffer, and count: where the number of bytes will be, if it will */
	TLS_READ_RETURN,   /* result: above 0 if it succeeded, and then the number of bytes, unless there was a count */
	TLS_WRITE,	   /* connection, buffer, and length */
	TLS_ERROR_QUERY,   /* connection, and result: what the last call on it returned, for its reason */
	TLS_GO_READ,	   /* connection, buffer, and length: at its end */
	TLS_GO_WRITE,	   /* as above, at its begin */
	/* connection, buffer, count, result, and what is not 0 if the bytes are only looked at: at the end of a read
	   that has no site at its begin */
	TLS_READ_END,
};

/*
 * The cookie of a uprobe's site: its event, and up to three places of values, in the order above. A place is an index
 * into struct pt_regs, whether the value is in the memory that the register points to, and the offset there. That of
 * TLS_READ_END has five, each of which is a register.
 */
enum tls_cookie {
	TLS_EVENT_BITS = 8,
	TLS_PLACE_BITS = 18,
	TLS_REGISTER_BITS = 5,
	TLS_PLACE_IN_MEMORY = 1 << TLS_REGISTER_BITS,
	TLS_OFFSET_BITS = TLS_PLACE_BITS - TLS_REGISTER_BITS - 1,
	TLS_NO_PLACE = (1 << TLS_REGISTER_BITS) - 1, /* no register has this index */
};

const enum tls_event *keep_tls_event __attribute__((unused));
const enum tls_cookie *keep_tls_cookie __attribute__((unused));

/* A thread that is in a call of a library, or was. */
struct tls_thread {
	__u64 reading;	/* address of the library's connection that it reads from; 0: it is in no such call */
	__u64 buffer;	/* of that call */
	__u64 count;	/* address of the number of bytes, or 0 */
	__u64 carrier;	/* cookie of the socket that moved bytes during that call, or 0 */
	__u64 received; /* cookie of the socket that received last, and not for a call that has returned; or 0 */
	__u64 written;	/* address of the connection that was written to last, or 0 */
	__u32 written_length;
	__u32 waiting; /* the length of first, where the socket of that write is not known yet; or 0 */
	__u32 srtt_us; /* of the socket that was noted last */
	__u32 retransmits;
	__u8 first[TLS_FIRST_BYTES]; /* of that write */
};

/* Owner: the kernel, with the thread. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tls_thread);
} tls_threads SEC(".maps");

struct tls_key {
	__u64 connection; /* address of the library's connection */
	__u32 pid;
	__u32 reserved;
};

/* Owner: the end of the socket; and of those whose socket's end is not seen, the oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tls_key);
	__type(value, struct tls_connection);
} tls_connections SEC(".maps");

/* Which connection of a library a socket carries, by the socket's cookie. Owner: as of the connections. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct tls_key);
} tls_carriers SEC(".maps");

/* One connection of which nothing is known: too large for a stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tls_connection);
} tls_blank SEC(".maps");

/* Which scratches of a CPU are taken. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, __u32);
} scratch_taken SEC(".maps");

/* Whether these are the first bytes of a record of TLS, its handshake or data (RFC 8446 section 5.1). */
static __always_inline bool looks_like_tls(__u64 first, __u32 few)
{
	__u8 type = first;

	return few >= 5 && (type == 22 || type == 23) && (__u8)(first >> 8) == 3 && (__u8)(first >> 16) <= 4 &&
	       (__u8)(first >> 24) <= 0x41;
}

/*
 * A register of the thread that hit a uprobe, by its index into struct pt_regs. The kernel lets a program read its
 * context at constant places alone; to have a helper copy it takes ten times as long.
 */
static __always_inline __u64 register_at(void *ctx, __u32 index)
{
	__u64 value = 0;

#define REGISTER(index)                                                                                                \
	case index:                                                                                                    \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value) : "r"(ctx), "i"(index * 8));                       \
		break;

	switch (index) {
		REGISTER(0)
		REGISTER(1)
		REGISTER(2)
		REGISTER(3)
		REGISTER(4)
		REGISTER(5)
		REGISTER(6)
		REGISTER(7)
		REGISTER(8)
		REGISTER(9)
		REGISTER(10)
		REGISTER(11)
		REGISTER(12)
		REGISTER(13)
		REGISTER(14)
		REGISTER(19)
	}
#undef REGISTER
	return value;
}

/* Reads what a place of a uprobe's cookie says. */
static __always_inline __u64 tls_value(void *ctx, __u64 cookie, __u32 index)
{
	__u32 place = cookie >> (TLS_EVENT_BITS + index * TLS_PLACE_BITS) & ((1 << TLS_PLACE_BITS) - 1);
	__u32 which = place & ((1 << TLS_REGISTER_BITS) - 1);
	__s64 offset = (__s64)((__u64)place << (64 - TLS_PLACE_BITS)) >> (64 - TLS_OFFSET_BITS);
	__u64 value;

	if (which == TLS_NO_PLACE)
		return 0;
	value = register_at(ctx, which);
	if (place & TLS_PLACE_IN_MEMORY) {
		const void *address = (const void *)(value + offset);

		if (bpf_probe_read_user(&value, sizeof(value), address))
			return 0;
	}
	return value;
}

/* Reads a register of a site's cookie that has nothing else. */
static __always_inline __u64 tls_register(void *ctx, __u64 cookie, __u32 index)
{
	return register_at(ctx,
			   cookie >> (TLS_EVENT_BITS + index * TLS_REGISTER_BITS) & ((1 << TLS_REGISTER_BITS) - 1));
}

static __always_inline bool takes_scratch(__u32 which)
{
	__u32 *taken = bpf_map_lookup_elem(&scratch_taken, &which);

	return taken && !__sync_lock_test_and_set(taken, 1);
}

static __always_inline __u32 take_scratch(void)
{
	_Static_assert(SCRATCHES == SCRATCH_TAKEN + 4, "each is tried");
	if (takes_scratch(SCRATCH_TAKEN))
		return SCRATCH_TAKEN;
	if (takes_scratch(SCRATCH_TAKEN + 1))
		return SCRATCH_TAKEN + 1;
	if (takes_scratch(SCRATCH_TAKEN + 2))
		return SCRATCH_TAKEN + 2;
	if (takes_scratch(SCRATCH_TAKEN + 3))
		return SCRATCH_TAKEN + 3;
	return SCRATCHES;
}

static __always_inline void release_scratch(__u32 which)
{
	__u32 *taken = bpf_map_lookup_elem(&scratch_taken, &which);

	if (taken)
		*taken = 0;
}

/* The connection of a library, tied to a socket; the former one at its address is forgotten if that was another's. */
static __always_inline struct tls_connection *tie_tls(struct tls_key *key, struct tls_connection *connection,
						      __u64 cookie)
{
	struct tls_connection *blank;
	__u32 zero = 0;

	if (connection && connection->socket.cookie == cookie)
		return connection;
	blank = bpf_map_lookup_elem(&tls_blank, &zero);
	if (!blank || bpf_map_update_elem(&tls_connections, key, blank, BPF_ANY) ||
	    bpf_map_update_elem(&tls_carriers, &cookie, key, BPF_ANY)) {
		count_loss(LOSS_STORAGE_FULL);
		return NULL;
	}
	connection = bpf_map_lookup_elem(&tls_connections, key);
	if (connection)
		connection->socket.cookie = cookie;
	return connection;
}

/* A socket that carries TLS is freed. */
static __always_inline void untie_tls(__u64 cookie)
{
	struct tls_key *key = bpf_map_lookup_elem(&tls_carriers, &cookie);
	struct tls_connection *connection;

	if (!key)
		return;
	connection = bpf_map_lookup_elem(&tls_connections, key);
	if (connection && connection->socket.cookie == cookie)
		bpf_map_delete_elem(&tls_connections, key);
	bpf_map_delete_elem(&tls_carriers, &cookie);
}

/* Bytes that a library has moved. */
static __noinline void moved_in_plain(struct tls_connection *connection, __u8 direction, struct source *source,
				      __u32 length)
{
	struct http_socket *socket = &connection->socket;
	struct call call = {};

	call.scratch = take_scratch();
	if (call.scratch >= SCRATCHES) {
		count_loss(LOSS_PROGRAM_BUSY);
		return;
	}
	begin_message(&call.message, direction);
	call.message.cookie = socket->cookie;
	call.message.srtt_us = connection->srtt_us;
	call.message.retransmits = connection->retransmits;
	call.message.flags = MESSAGE_SECURE;
	call.offset = connection->offset[direction & 1];
	call.length = length;
	call.ending = true;
	call.answers_at = connection->offset[!direction];
	if (socket->protocol < PROTOCOL_HTTP2)
		look_at_head(socket, source, &call);
	if (!socket->protocol && call.few == sizeof(call.first) && looks_like_headers_frame(call.first))
		join_frames(socket, &call);
	if (socket->protocol == PROTOCOL_HTTP2 || recognize(socket, &call)) {
		if (call.head && direction == MESSAGE_SENT)
			take_go_caller(&socket->go, socket->cookie, &call.message);
		follow(socket, source, &call);
	}
	connection->offset[direction & 1] = call.offset + length;
	release_scratch(call.scratch);
}

/* What is known of a connection's socket is what its thread has noted last. */
static __always_inline void take_measures(struct tls_connection *connection, struct tls_thread *thread)
{
	connection->srtt_us = thread->srtt_us;
	connection->retransmits = thread->retransmits;
}

/* The first write on a connection, whose socket was found. */
static __always_inline void write_tied(struct tls_thread *thread, __u64 cookie)
{
	struct tls_key key = {.connection = thread->written, .pid = bpf_get_current_pid_tgid() >> 32};
	struct tls_connection *connection = tie_tls(&key, bpf_map_lookup_elem(&tls_connections, &key), cookie);
	struct source source = {.base = thread->first, .size = thread->waiting, .copied = true};

	thread->waiting = 0;
	if (!connection)
		return;
	take_measures(connection, thread);
	moved_in_plain(connection, MESSAGE_SENT, &source, thread->written_length);
}

/* A write whose socket was not found, and that was not refused. */
static __always_inline void forget_write(struct tls_thread *thread)
{
	if (thread->written && thread->waiting)
		count_loss(LOSS_UNTIED);
	thread->written = 0;
	thread->waiting = 0;
}

static __always_inline int tls_read(void *ctx, __u64 site)
{
	struct tls_thread *thread =
		bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!thread) {
		count_loss(LOSS_STORAGE_FULL);
		return 0;
	}
	thread->reading = tls_value(ctx, site, 0);
	thread->buffer = tls_value(ctx, site, 1);
	thread->count = tls_value(ctx, site, 2);
	thread->carrier = 0;
	/* Who has received for a connection may write first, and then read. */
	if (thread->waiting && thread->written == thread->reading && thread->received)
		write_tied(thread, thread->received);
	forget_write(thread);
	return 0;
}

/*
 * The socket of a connection that was read from: the one that moved bytes during the call, if the library does that
 * itself, or else the one from which the thread has received for it right before. 0: not known.
 */
static __always_inline __u64 read_from(struct tls_thread *thread, struct tls_connection *connection)
{
	if (thread->carrier)
		return thread->carrier;
	if (!connection || !thread->received)
		return connection ? connection->socket.cookie : thread->received;
	/* It may have had more than it gave before; or its address is that of a former one, and it is new. */
	if (connection->itself && bpf_map_lookup_elem(&tls_carriers, &thread->received))
		return connection->socket.cookie;
	return thread->received;
}

static __always_inline int tls_read_return(void *ctx, __u64 site)
{
	struct tls_thread *thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, 0);
	struct tls_key key = {.pid = bpf_get_current_pid_tgid() >> 32};
	struct tls_connection *connection;
	__s64 length;
	__u64 cookie;

	if (!thread || !thread->reading)
		return 0; /* several functions share the place at which they end */
	key.connection = thread->reading;
	thread->reading = 0;
	connection = bpf_map_lookup_elem(&tls_connections, &key);
	cookie = read_from(thread, connection);
	thread->received = 0;
	length = (__s32)tls_value(ctx, site, 0);
	if (length > 0 && thread->count) {
		__u64 count = 0;

		if (bpf_probe_read_user(&count, sizeof(count), (const void *)thread->count))
			count = 0;
		length = count > 0x7fffffff ? 0x7fffffff : count;
	}
	if (!cookie) {
		if (length > 0)
			count_loss(LOSS_UNTIED);
		return 0;
	}
	connection = tie_tls(&key, connection, cookie);
	if (!connection)
		return 0;
	if (thread->carrier)
		connection->itself = true;
	take_measures(connection, thread);
	if (length > 0) {
		struct source source = {.base = (const void *)thread->buffer, .size = length};

		moved_in_plain(connection, MESSAGE_RECEIVED, &source, length);
	}
	return 0;
}

/*
 * As read_from, where no begin has told in which call the socket moved bytes. The one that the thread has received from
 * last is another connection's if that has it still: then this one's bytes had come before.
 */
static __always_inline __u64 read_from_last(struct tls_thread *thread, struct tls_key *key,
					    struct tls_connection *connection)
{
	struct tls_connection *other;
	struct tls_key *carried;

	if (!thread->received)
		return connection ? connection->socket.cookie : 0;
	if (!connection || connection->socket.cookie == thread->received)
		return thread->received;
	carried = bpf_map_lookup_elem(&tls_carriers, &thread->received);
	if (!carried || (carried->connection == key->connection && carried->pid == key->pid))
		return thread->received;
	other = bpf_map_lookup_elem(&tls_connections, carried);
	return other && other->socket.cookie == thread->received ? connection->socket.cookie : thread->received;
}

static __always_inline int tls_read_end(void *ctx, __u64 site)
{
	struct tls_thread *thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, 0);
	struct tls_key key = {.connection = tls_register(ctx, site, 0)};
	__u64 count = tls_register(ctx, site, 2);
	__s64 length = (__s32)tls_register(ctx, site, 3);
	struct tls_connection *connection;
	__u64 cookie;

	if (length > 0 && (__u32)tls_register(ctx, site, 4))
		return 0; /* what was received is for the read that will follow */
	if (!thread) {
		thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL,
					      BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!thread) {
			count_loss(LOSS_STORAGE_FULL);
			return 0;
		}
	}
	/* Who has received for a connection may write first, and then read. */
	if (thread->waiting && thread->written == key.connection && thread->received)
		write_tied(thread, thread->received);
	forget_write(thread);
	if (length <= 0 && !thread->received)
		return 0;
	key.pid = bpf_get_current_pid_tgid() >> 32;
	connection = bpf_map_lookup_elem(&tls_connections, &key);
	cookie = read_from_last(thread, &key, connection);
	thread->received = 0;
	if (!cookie) {
		if (length > 0)
			count_loss(LOSS_UNTIED);
		return 0;
	}
	connection = tie_tls(&key, connection, cookie);
	if (!connection)
		return 0;
	take_measures(connection, thread);
	if (length > 0) {
		struct source source = {.base = (const void *)tls_register(ctx, site, 1)};
		__u64 moved = 0;

		if (bpf_probe_read_user(&moved, sizeof(moved), (const void *)count))
			moved = 0;
		length = moved > 0x7fffffff ? 0x7fffffff : moved;
		source.size = length;
		if (length)
			moved_in_plain(connection, MESSAGE_RECEIVED, &source, length);
	}
	return 0;
}

/*
 * A write is told of at its begin, so that a request comes before its response. One that is not complete is repeated
 * with the same length, after the program has asked for the reason (SSL_get_error).
 */
static __always_inline int tls_write(void *ctx, __u64 site)
{
	struct tls_key key = {.connection = tls_value(ctx, site, 0), .pid = bpf_get_current_pid_tgid() >> 32};
	struct tls_connection *connection;
	__u32 length = tls_value(ctx, site, 2);
	struct source source = {.base = (const void *)tls_value(ctx, site, 1), .size = length};
	struct tls_thread *thread;

	thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		count_loss(LOSS_STORAGE_FULL);
		return 0;
	}
	forget_write(thread);
	thread->reading = 0;
	if (!length || length > 0x7fffffff)
		return 0;
	thread->written = key.connection;
	thread->written_length = length;
	connection = bpf_map_lookup_elem(&tls_connections, &key);
	if (!connection) {
		thread->waiting = length < TLS_FIRST_BYTES ? length : TLS_FIRST_BYTES;
		if (bpf_probe_read_user(thread->first, thread->waiting & (2 * TLS_FIRST_BYTES - 1), source.base))
			thread->waiting = 0;
		return 0;
	}
	if (connection->repeated == length) {
		connection->repeated = 0;
		return 0;
	}
	connection->repeated = 0;
	take_measures(connection, thread);
	moved_in_plain(connection, MESSAGE_SENT, &source, length);
	return 0;
}

static __always_inline int tls_error_query(void *ctx, __u64 site)
{
	struct tls_key key = {.connection = tls_value(ctx, site, 0), .pid = bpf_get_current_pid_tgid() >> 32};
	struct tls_thread *thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, 0);
	struct tls_connection *connection;
	bool told;

	if (!thread || thread->written != key.connection || (__s32)tls_value(ctx, site, 1) > 0)
		return 0;
	told = !thread->waiting;
	thread->written = 0;
	thread->waiting = 0;
	connection = bpf_map_lookup_elem(&tls_connections, &key);
	if (connection && told)
		connection->repeated = thread->written_length;
	return 0;
}

/* A socket that carries TLS moves bytes: the thread may be in a call of a library. */
static __always_inline void note_tls(struct http_socket *socket, struct tcp_sock *tcp, __u8 direction)
{
	bool received = direction == MESSAGE_RECEIVED;
	/* What the last of a handshake came from says later to which socket a new connection belongs. */
	struct tls_thread *thread = bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL,
							 received ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	__u64 cookie = socket->cookie;

	if (!thread)
		return;
	thread->srtt_us = tcp->srtt_us >> 3;
	thread->retransmits = tcp->total_retrans;
	if (thread->reading)
		thread->carrier = cookie;
	if (received)
		thread->received = cookie;
	else if (thread->written && thread->waiting)
		write_tied(thread, cookie);
}

/* crypto/tls.Conn begins with the net.Conn that carries it. */
static __always_inline int go_tls(void *ctx, __u64 site, __u8 direction)
{
	struct tls_key key = {.connection = tls_value(ctx, site, 0), .pid = bpf_get_current_pid_tgid() >> 32};
	__s64 length = tls_value(ctx, site, 2);
	struct tls_connection *connection;
	struct source source = {};
	bool closed = false;
	struct sock *sk;
	__u64 cookie = 0;

	if (length <= 0)
		return 0;
	if (length > 0x7fffffff)
		length = 0x7fffffff;
	connection = bpf_map_lookup_elem(&tls_connections, &key);
	sk = go_socket(key.connection, &closed);
	if (closed && direction == MESSAGE_SENT)
		return 0; /* nothing will be */
	if (sk) {
		cookie = sk->__sk_common.skc_cookie.counter;
		asm volatile("" : "+r"(cookie)); /* not merged with the load below, which the verifier refuses */
	} else if (closed && connection) {	 /* it has received before */
		cookie = connection->socket.cookie;
	}
	if (!cookie) {
		count_loss(LOSS_UNTIED);
		return 0;
	}
	connection = tie_tls(&key, connection, cookie);
	if (!connection)
		return 0;
	if (sk) {
		struct tcp_sock *tcp = tcp_of(sk);

		connection->srtt_us = tcp->srtt_us >> 3;
		connection->retransmits = tcp->total_retrans;
	}
	source.base = (const void *)tls_value(ctx, site, 1);
	source.size = length;
	moved_in_plain(connection, direction, &source, length);
	return 0;
}

#endif
