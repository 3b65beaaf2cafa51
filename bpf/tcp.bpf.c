// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * The TCP probe: who talks to whom, how much, how fast, and how it ended.
 *
 * A connection is followed by its state changes (about five in its life) and never by its packets. What it carried is
 * read from the kernel's own counters in struct tcp_sock, when it ends and at each snapshot.
 *
 *   state change --> connections (socket storage) --> flow on the ring, when a connection ends
 *   snapshot     --> connections (socket storage) --> flow on the ring, while it lives
 *   seed         --> connections, for what stood before we started
 *
 * Counters are reported as a total and as the delta since the last report. The delta is taken with a compare-and-swap
 * on each counter, so a snapshot and an end on two CPUs never count a byte twice.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "loss.h"
#include "ring.h"
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The collector's own process: it does not observe itself. */
const volatile __u32 self_pid = 0;

enum flow_kind {
	FLOW_END = 1,	   /* a connection or a connect attempt ended */
	FLOW_SNAPSHOT,	   /* a connection lives */
	FLOW_RESET_SENT,   /* the kernel sent a reset after the end had been reported */
	FLOW_LISTENER,	   /* a listening socket lives */
	FLOW_LISTENER_END, /* a listening socket was closed */
};

enum flow_role {
	ROLE_UNKNOWN,
	ROLE_CLIENT,
	ROLE_SERVER,
	ROLE_LISTENER,
	ROLE_IGNORED, /* the collector's own */
};

enum flow_flags {
	FLAG_SEEDED = 1 << 0,	       /* stood before the probe: its start and handshake are unknown */
	FLAG_OWNER_INHERITED = 1 << 1, /* the owner is the listener's; no task has been seen to use the connection */
	FLAG_OPEN_REPORTED =
		1 << 2, /* in storage: an earlier flow said that it opened; in a flow: this one is not the first */
	FLAG_ENDED = 1 << 3,
	FLAG_KERNEL_THREAD = 1 << 4,	  /* the owner is a kernel thread */
	FLAG_APPLICATION_CLOSED = 1 << 5, /* sk_shutdown had both directions when this was read */
	FLAG_NODELAY = 1 << 6,		  /* TCP_NODELAY */
	FLAG_KEEPALIVE = 1 << 7,	  /* SO_KEEPALIVE */
	FLAG_REUSEADDR = 1 << 8,	  /* SO_REUSEADDR */
	FLAG_REUSEPORT = 1 << 9,	  /* SO_REUSEPORT */
};

/* The process that a socket belongs to. */
struct owner {
	__u64 start_boot_ns; /* task_struct.start_boottime of the process */
	__u32 pid;	     /* thread group id in the initial namespace; 0 is unknown */
	__u32 kernel_thread;
	__u8 comm[16];
};

/* What a connection has carried. */
struct counters {
	__u64 sent_bytes;     /* payload, without retransmissions */
	__u64 received_bytes; /* payload in order */
	__u32 sent_segments;
	__u32 received_segments;
	__u32 retransmits;	  /* data segments, after the handshake */
	__u32 synack_retransmits; /* a listener's */
	__u32 drops;		  /* a listener's sk_drops */
	__u32 reserved;
};

/* State of a socket, in its own storage: the kernel frees it with the socket. */
struct connection {
	__u64 started_ns;     /* SYN sent (client), full socket made (server), listen called, or seeded */
	__u64 established_ns; /* 0: not (yet) */
	__u64 reported_ns;
	struct counters reported;
	struct owner owner;
	__u32 synack_retransmits;    /* a listener's, all its children */
	__u32 handshake_retransmits; /* total_retrans when the connection was established */
	__u32 local_sequence;	     /* first sequence number after the SYN, each way: the same pair on both ends */
	__u32 remote_sequence;
	__u32 flags;
	__u16 resets_sent;
	__u16 resets_received;
	__u8 role;
	__u8 state; /* the last one that was accounted for; FIN_WAIT2, CLOSE_WAIT and CLOSING are not */
};

/* One report. Addresses are as the socket has them: the first four bytes for AF_INET. */
struct flow {
	__u64 time_ns;
	__u64 started_ns;
	__u64 established_ns;
	__u64 reported_ns; /* time of the report before this one; 0: none */
	__u64 cookie;
	__u64 cgroup_id;
	struct owner owner;
	struct counters total;
	struct counters delta;
	__u8 local_address[16];
	__u8 peer_address[16];
	__u8 congestion[16];
	__u32 flags;
	__u32 network_namespace;
	__u32 local_sequence;
	__u32 remote_sequence;
	__u32 srtt_us;
	__u32 rttvar_us;
	__u32 min_rtt_us;
	__u32 congestion_window;
	__u32 slow_start_threshold;
	__u32 mss;
	__u32 handshake_retransmits;
	__u32 mark;
	__u32 priority;
	__u32 user_timeout_ms;
	__u32 receive_buffer;
	__u32 send_buffer;
	__u32 backlog; /* a listener's connections that wait to be accepted */
	__u32 backlog_limit;
	__u32 bound_interface;
	__s32 error; /* sk_err */
	__u16 local_port;
	__u16 peer_port;
	__u16 family;
	__u16 resets_sent;
	__u16 resets_received;
	__u8 kind;
	__u8 role;
	__u8 state; /* the state it is in, or was in before it ended */
	__u8 tos;
	__u8 reserved[6];
};

_Static_assert(sizeof(struct flow) % 8 == 0, "a ring keeps its events aligned to 8 bytes");

/* Type information is kept for what a global refers to: these are for the Go bindings alone. */
const struct flow *keep_flow __attribute__((unused));
const enum flow_kind *keep_flow_kind __attribute__((unused));
const enum flow_role *keep_flow_role __attribute__((unused));
const enum flow_flags *keep_flow_flags __attribute__((unused));

/* Owner: the kernel. BPF_F_CLONE hands a listener's storage to the connections that it accepts. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

/*
 * How many connections and listeners began and ended, and how many the last walk of tcp_census found alive. What began
 * and neither ended nor lives has ended unseen: the kernel has freed the storage with the socket.
 */
enum census_count {
	CENSUS_BEGUN,
	CENSUS_ENDED,
	CENSUS_ALIVE,
	CENSUS_COUNTS,
};

const enum census_count *keep_census_count __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CENSUS_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} census SEC(".maps");

static __always_inline void count_census(__u32 which)
{
	count_one(&census, which);
}

static __always_inline void own(struct connection *connection, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	connection->owner.pid = task->tgid;
	connection->owner.kernel_thread = !!(task->flags & PF_KTHREAD);
	connection->owner.start_boot_ns = leader->start_boottime;
	__builtin_memcpy(connection->owner.comm, leader->comm, sizeof(connection->owner.comm));
	if (connection->owner.pid == self_pid)
		connection->role = ROLE_IGNORED;
}

/*
 * The current task may be taken as the socket's user only while a task has locked it: in softirq context, current is
 * whoever was interrupted.
 */
static __always_inline bool current_task_uses(struct sock *sk)
{
	return sk->sk_lock.owned;
}

/* Gives a connection that still has its listener's owner to the task that uses it. */
static __always_inline void adopt(struct connection *connection, struct sock *sk)
{
	struct task_struct *task;

	if (!(connection->flags & FLAG_OWNER_INHERITED) || !current_task_uses(sk))
		return;
	task = bpf_get_current_task_btf();
	if (task->flags & PF_KTHREAD)
		return;
	own(connection, task);
	__sync_fetch_and_and(&connection->flags, ~FLAG_OWNER_INHERITED);
}

static __always_inline struct connection *create(struct sock *sk)
{
	struct connection *connection = bpf_sk_storage_get(&connections, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!connection)
		count_loss(LOSS_STORAGE_FULL);
	return connection;
}

/* Forgets an earlier life of the same socket, or what was cloned from the listener; the owner stays. */
static __always_inline void begin(struct connection *connection, __u8 role, __u64 now_ns, __u32 flags)
{
	connection->started_ns = now_ns;
	connection->established_ns = 0;
	connection->reported_ns = 0;
	__builtin_memset(&connection->reported, 0, sizeof(connection->reported));
	connection->synack_retransmits = 0;
	connection->handshake_retransmits = 0;
	connection->local_sequence = 0;
	connection->remote_sequence = 0;
	connection->resets_sent = 0;
	connection->resets_received = 0;
	connection->flags = flags;
	connection->role = role;
	count_census(CENSUS_BEGUN);
}

static __always_inline void find_sequences(struct tcp_sock *tcp, struct connection *connection)
{
	connection->local_sequence = tcp_first_sequence_sent(tcp, connection->role == ROLE_CLIENT);
	connection->remote_sequence = tcp_first_sequence_received(tcp);
}

static __always_inline bool fin_sent(struct tcp_sock *tcp)
{
	switch (tcp->inet_conn.icsk_inet.sk.__sk_common.skc_state) {
	case TCP_FIN_WAIT1:
	case TCP_FIN_WAIT2:
	case TCP_CLOSING:
	case TCP_LAST_ACK:
		return tcp->snd_nxt == tcp->write_seq; /* it comes after all data */
	}
	return false;
}

/*
 * bytes_sent - bytes_retrans is the payload sent, but for segments that this host itself dropped on the way out (a full
 * queue, a firewall): those are counted each time they are tried. snd_nxt moves once for each byte, so it gives the
 * lower 32 bits of the true figure.
 */
static __always_inline __u64 payload_sent(struct tcp_sock *tcp, struct connection *connection)
{
	__u64 sent = tcp->bytes_sent - tcp->bytes_retrans;
	__u32 excess;

	if (!connection->local_sequence && !connection->remote_sequence)
		return sent;
	excess = (__u32)sent - (tcp->snd_nxt - connection->local_sequence - fin_sent(tcp));
	/* A reading between two steps of the kernel, without the socket's lock, may be off by a segment the other way.
	 */
	return (__s32)excess > 0 && excess <= sent ? sent - excess : sent;
}

static __always_inline void count(struct tcp_sock *tcp, struct connection *connection, bool locked,
				  struct counters *total)
{
	__u32 retransmits = tcp->total_retrans;

	total->sent_bytes = payload_sent(tcp, connection);
	total->received_bytes = tcp_payload_received(tcp, locked, connection->remote_sequence);
	total->sent_segments = tcp->segs_out;
	total->received_segments = tcp->segs_in;
	if (retransmits >= connection->handshake_retransmits)
		total->retransmits = retransmits - connection->handshake_retransmits;
	total->synack_retransmits = connection->synack_retransmits;
	total->drops = tcp->inet_conn.icsk_inet.sk.sk_drops.counter;
}

/*
 * Claims the part of a counter that nobody has reported yet. The only rival is the other of {snapshot, end}, once: so
 * a second try wins where the first lost, and a snapshot that lost leaves the rest to the end.
 */
static __always_inline __u64 claim_u64(volatile __u64 *reported, __u64 total)
{
	for (int try = 0; try < 2; try++) {
		__u64 before = *reported;

		if (total <= before)
			return 0;
		if (__sync_val_compare_and_swap(reported, before, total) == before)
			return total - before;
	}
	return 0;
}

static __always_inline __u32 claim_u32(volatile __u32 *reported, __u32 total)
{
	for (int try = 0; try < 2; try++) {
		__u32 before = *reported;

		if ((__s32)(total - before) <= 0) /* the kernel's 32-bit counters wrap */
			return 0;
		if (__sync_val_compare_and_swap(reported, before, total) == before)
			return total - before;
	}
	return 0;
}

static __always_inline void claim(struct connection *connection, const struct counters *total, struct counters *delta)
{
	struct counters *reported = &connection->reported;

	delta->sent_bytes = claim_u64(&reported->sent_bytes, total->sent_bytes);
	delta->received_bytes = claim_u64(&reported->received_bytes, total->received_bytes);
	delta->sent_segments = claim_u32(&reported->sent_segments, total->sent_segments);
	delta->received_segments = claim_u32(&reported->received_segments, total->received_segments);
	delta->retransmits = claim_u32(&reported->retransmits, total->retransmits);
	delta->synack_retransmits = claim_u32(&reported->synack_retransmits, total->synack_retransmits);
	delta->drops = claim_u32(&reported->drops, total->drops);
}

/* Takes a claim back: the report did not get out, and the next one will tell. */
static __always_inline void unclaim(struct connection *connection, const struct counters *delta)
{
	struct counters *reported = &connection->reported;

	__sync_fetch_and_sub(&reported->sent_bytes, delta->sent_bytes);
	__sync_fetch_and_sub(&reported->received_bytes, delta->received_bytes);
	__sync_fetch_and_sub(&reported->sent_segments, delta->sent_segments);
	__sync_fetch_and_sub(&reported->received_segments, delta->received_segments);
	__sync_fetch_and_sub(&reported->retransmits, delta->retransmits);
	__sync_fetch_and_sub(&reported->synack_retransmits, delta->synack_retransmits);
	__sync_fetch_and_sub(&reported->drops, delta->drops);
}

static __always_inline void describe(struct flow *flow, struct tcp_sock *tcp, struct connection *connection, __u8 kind,
				     __u8 state, __u64 now_ns)
{
	struct inet_connection_sock *icsk = &tcp->inet_conn;
	struct inet_sock *inet = &icsk->icsk_inet;
	struct sock *sk = &inet->sk;
	struct sock_common *common = &sk->__sk_common;
	const struct tcp_congestion_ops *congestion = icsk->icsk_ca_ops;
	__u32 flags;

	flow->kind = kind;
	flow->role = connection->role;
	flow->state = state;
	flow->time_ns = now_ns;
	flow->started_ns = connection->started_ns;
	flow->established_ns = connection->established_ns;
	flow->reported_ns = connection->reported_ns;
	flow->cookie = bpf_get_socket_cookie(tcp);
	flow->cgroup_id = tcp_cgroup_id(sk);
	flow->owner = connection->owner;

	flow->family = common->skc_family;
	tcp_addresses(common, flow->local_address, flow->peer_address);
	/* skc_num is already 0 when a connection closes. */
	flow->local_port = bpf_ntohs(inet->inet_sport);
	flow->peer_port = bpf_ntohs(common->skc_dport);
	flow->network_namespace = common->skc_net.net->ns.inum;
	flow->bound_interface = common->skc_bound_dev_if;

	flow->local_sequence = connection->local_sequence;
	flow->remote_sequence = connection->remote_sequence;
	flow->srtt_us = tcp->srtt_us >> 3;
	flow->rttvar_us = tcp->rttvar_us >> 2;
	flow->min_rtt_us = tcp->rtt_min.s[0].v;
	flow->congestion_window = tcp->snd_cwnd;
	flow->slow_start_threshold = tcp->snd_ssthresh;
	flow->mss = tcp->mss_cache;
	flow->handshake_retransmits = connection->handshake_retransmits;
	flow->resets_sent = connection->resets_sent;
	flow->resets_received = connection->resets_received;
	flow->error = sk->sk_err;
	flow->tos = inet->tos;
	flow->mark = sk->sk_mark;
	flow->priority = sk->sk_priority;
	flow->user_timeout_ms = icsk->icsk_user_timeout;
	flow->receive_buffer = sk->sk_rcvbuf;
	flow->send_buffer = sk->sk_sndbuf;
	flow->backlog = sk->sk_ack_backlog;
	flow->backlog_limit = sk->sk_max_ack_backlog;
	if (congestion) {
		const __u64 *name = (const void *)&congestion->name;

		((__u64 *)flow->congestion)[0] = name[0];
		((__u64 *)flow->congestion)[1] = name[1];
	}

	/* What looks like a listener may be its clone, of which a connection is being made at the moment. */
	if (kind == FLOW_LISTENER || kind == FLOW_LISTENER_END)
		flags = connection->flags;
	else
		flags = __sync_fetch_and_or(&connection->flags, FLAG_OPEN_REPORTED);
	if (connection->owner.kernel_thread)
		flags |= FLAG_KERNEL_THREAD;
	if (sk->sk_shutdown == 3)
		flags |= FLAG_APPLICATION_CLOSED;
	if (tcp->nonagle & 1)
		flags |= FLAG_NODELAY;
	if (common->skc_flags & (1UL << bpf_core_enum_value(enum sock_flags, SOCK_KEEPOPEN)))
		flags |= FLAG_KEEPALIVE;
	if (common->skc_reuse)
		flags |= FLAG_REUSEADDR;
	if (common->skc_reuseport)
		flags |= FLAG_REUSEPORT;
	flow->flags = flags;
}

static __always_inline void fill(struct flow *flow, struct tcp_sock *tcp, struct connection *connection, __u8 kind,
				 __u8 state, __u64 now_ns)
{
	__builtin_memset(flow, 0, sizeof(*flow));
	count(tcp, connection, kind != FLOW_SNAPSHOT, &flow->total);
	claim(connection, &flow->total, &flow->delta);
	describe(flow, tcp, connection, kind, state, now_ns);
}

/* Writes a flow where it is read, in the ring. A perf buffer wants a copy. */
static __always_inline void report(void *ctx, struct tcp_sock *tcp, struct connection *connection, __u8 kind,
				   __u8 state, __u64 now_ns)
{
	if (ring_is_perf_buffer) {
		struct flow flow;

		fill(&flow, tcp, connection, kind, state, now_ns);
		ring_output(ctx, &flow, sizeof(flow));
	} else {
		struct flow *flow = bpf_ringbuf_reserve(&events, sizeof(*flow), 0);

		if (!flow) {
			count_loss(LOSS_RING_FULL);
			return;
		}
		fill(flow, tcp, connection, kind, state, now_ns);
		bpf_ringbuf_submit(flow, ring_wakeup(sizeof(*flow)));
	}
	connection->reported_ns = now_ns;
}

static __always_inline int established(struct tcp_sock *tcp, struct connection *connection)
{
	connection->established_ns = bpf_ktime_get_ns();
	connection->handshake_retransmits = tcp->total_retrans;
	find_sequences(tcp, connection);
	return 0;
}

static __always_inline int ended(void *ctx, struct tcp_sock *tcp, struct connection *connection, int old_state)
{
	if (connection->flags & FLAG_ENDED)
		return 0;
	count_census(CENSUS_ENDED); /* before the flag: tcp_census may count it twice, and never misses it */
	__sync_fetch_and_or(&connection->flags, FLAG_ENDED);
	if (connection->role == ROLE_IGNORED)
		return 0;
	if (!connection->established_ns && old_state != TCP_SYN_SENT && old_state != TCP_SYN_RECV &&
	    connection->role != ROLE_LISTENER && !connection->local_sequence && !connection->remote_sequence)
		find_sequences(tcp, connection);
	report(ctx, tcp, connection, connection->role == ROLE_LISTENER ? FLOW_LISTENER_END : FLOW_END, old_state,
	       bpf_ktime_get_ns());
	return 0;
}

/*
 * Makes good for a state change that went unseen, by what the next one tells. What is not known stays 0: the start, and
 * the owner until a task uses the connection.
 */
static __always_inline struct connection *mend(struct sock *sk, struct connection *connection, int old_state)
{
	if (!connection)
		connection = create(sk);
	else if (!(connection->role == ROLE_LISTENER && old_state != TCP_LISTEN) &&
		 !((connection->flags & FLAG_ENDED) && old_state == TCP_SYN_SENT))
		return connection;
	if (connection)
		begin(connection, old_state == TCP_SYN_SENT ? ROLE_CLIENT : ROLE_SERVER, 0, FLAG_OWNER_INHERITED);
	return connection;
}

static __always_inline struct connection *prepare(struct sock *sk, struct connection *connection, int old_state,
						  int new_state)
{
	switch (new_state) {
	case TCP_SYN_SENT:
	case TCP_LISTEN:
	case TCP_SYN_RECV: /* a clone of the listener: it has the listener's storage unless that was never made */
		return connection ?: create(sk);
	case TCP_ESTABLISHED:
		return mend(sk, connection, old_state);
	case TCP_CLOSE:
		return connection ? mend(sk, connection, old_state) : NULL;
	}
	return connection;
}

static __always_inline int state_changed(void *ctx, struct sock *sk, int old_state, int new_state, bool again)
{
	struct connection *connection;
	struct tcp_sock *tcp;

	switch (new_state) {
	case TCP_FIN_WAIT2:
	case TCP_CLOSE_WAIT:
	case TCP_CLOSING:
		return 0;
	}

	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	connection = bpf_sk_storage_get(&connections, sk, NULL, 0);
	if (connection && connection->state == new_state)
		return 0; /* the other program has been here */
	connection = prepare(sk, connection, old_state, new_state);
	if (!connection) {
		if (new_state == TCP_CLOSE && old_state != TCP_CLOSE && !again)
			count_loss(LOSS_UNTRACKED);
		return 0;
	}
	connection->state = new_state;

	switch (new_state) {
	case TCP_SYN_SENT:
	case TCP_LISTEN:
		begin(connection, new_state == TCP_LISTEN ? ROLE_LISTENER : ROLE_CLIENT, bpf_ktime_get_ns(), 0);
		own(connection, bpf_get_current_task_btf());
		return 0;
	case TCP_SYN_RECV:
		begin(connection, connection->role == ROLE_IGNORED ? ROLE_IGNORED : ROLE_SERVER, bpf_ktime_get_ns(),
		      FLAG_OWNER_INHERITED);
		return 0;
	case TCP_ESTABLISHED:
		return established(tcp, connection);
	}

	/* The application's close or shutdown, or the end. */
	adopt(connection, sk);
	if (new_state == TCP_CLOSE)
		ended(ctx, tcp, connection, old_state);
	return 0;
}

/*
 * sock:inet_sock_set_state: called with the socket locked, before the new state is stored.
 *
 * The kernel does not run a program that is running already on the same CPU. While a program handles a task's state
 * change, a softirq may change the states of many other sockets, and the program would miss them all. So there are two
 * of it, one after the other: what interrupts the first finds the second, and the other way round. The state in storage
 * tells each what the other has done.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, struct sock *sk, int old_state, int new_state)
{
	return state_changed(ctx, sk, old_state, new_state, false);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state_again, struct sock *sk, int old_state, int new_state)
{
	return state_changed(ctx, sk, old_state, new_state, true);
}

/* tcp:tcp_rcv_space_adjust: a task has read from the socket. The first one serves an accepted connection. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_read, struct sock *sk)
{
	struct connection *connection = bpf_sk_storage_get(&connections, sk, NULL, 0);

	if (connection)
		adopt(connection, sk);
	return 0;
}

/* tcp:tcp_receive_reset: before the state changes. */
SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_reset_received, struct sock *sk)
{
	struct connection *connection = bpf_sk_storage_get(&connections, sk, NULL, 0);

	if (connection)
		connection->resets_received++;
	return 0;
}

/*
 * tcp:tcp_send_reset: sk is NULL, or not a full socket, for a port where nobody listens (then the helper says no).
 * When an application closes with data unread, the reset follows the end of the connection.
 */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_sent, struct sock *sk)
{
	struct connection *connection;
	struct tcp_sock *tcp;

	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	connection = bpf_sk_storage_get(&connections, tcp, NULL, 0);
	if (!connection || connection->role == ROLE_LISTENER || connection->role == ROLE_IGNORED)
		return 0;
	connection->resets_sent++;
	if (connection->flags & FLAG_ENDED)
		report(ctx, tcp, connection, FLOW_RESET_SENT, TCP_CLOSE, bpf_ktime_get_ns());
	return 0;
}

/* tcp:tcp_retransmit_synack: sk is the listener. */
SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(tcp_synack_retransmitted, struct sock *sk)
{
	struct connection *connection = bpf_sk_storage_get(&connections, sk, NULL, 0);

	if (connection)
		__sync_fetch_and_add(&connection->synack_retransmits, 1);
	return 0;
}

/*
 * Walks every tracked socket of every network namespace and sends a flow for each. Not through the iterator's file: it
 * is read a few pages at a time, and each read walks the list again to where the last one ended.
 */
SEC("iter/bpf_sk_storage_map")
int tcp_snapshot(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct connection *connection = ctx->value;
	struct sock *sk = ctx->sk;
	struct flow flow;
	struct tcp_sock *tcp;
	__u64 now_ns;
	__u8 state;
	__u8 kind;

	if (!sk || !connection)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	switch (connection->role) {
	case ROLE_LISTENER:
		kind = FLOW_LISTENER;
		break;
	case ROLE_CLIENT:
	case ROLE_SERVER:
		kind = FLOW_SNAPSHOT;
		break;
	default:
		return 0;
	}
	state = sk->__sk_common.skc_state;
	if ((connection->flags & FLAG_ENDED) || state == TCP_SYN_SENT || state == TCP_SYN_RECV)
		return 0; /* reported, or still connecting: its end, or the next snapshot, tells */

	if (ring_is_half_full())
		return 1; /* ends the read with EAGAIN; the next one begins with this socket */

	now_ns = bpf_ktime_get_ns();
	fill(&flow, tcp, connection, kind, state, now_ns);
	if (ring_output_quietly(ctx, &flow, sizeof(flow))) {
		unclaim(connection, &flow.delta);
		__sync_fetch_and_and(&connection->flags, ~FLAG_OPEN_REPORTED | flow.flags);
		return 0;
	}
	connection->reported_ns = now_ns;
	return 0;
}

/*
 * Counts the sockets that live, all in one walk: an iterator that is read again goes on at a position, and passes over
 * sockets where others before it went in between.
 */
SEC("iter/bpf_sk_storage_map")
int tcp_census(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct connection *connection = ctx->value;

	if (connection && !(connection->flags & FLAG_ENDED))
		count_census(CENSUS_ALIVE);
	return 0;
}

/* A socket that stood before the probe: what it has carried so far is the baseline, not news. */
static __always_inline void seed(struct tcp_sock *tcp, struct task_struct *task)
{
	struct sock *sk = &tcp->inet_conn.icsk_inet.sk;
	__u8 state = sk->__sk_common.skc_state;
	struct connection *connection;
	__u64 now_ns;
	__u8 role;

	switch (state) {
	case TCP_CLOSE:
	case TCP_TIME_WAIT:
	case TCP_NEW_SYN_RECV:
		return;
	case TCP_LISTEN:
		role = ROLE_LISTENER;
		break;
	case TCP_SYN_SENT:
		role = ROLE_CLIENT;
		break;
	default:
		role = tcp_was_accepted(sk) ? ROLE_SERVER : ROLE_CLIENT;
	}
	connection = create(sk);
	if (!connection)
		return;
	now_ns = bpf_ktime_get_ns();
	begin(connection, role, now_ns, FLAG_SEEDED | (state == TCP_SYN_SENT ? 0 : FLAG_OPEN_REPORTED));
	connection->state = state;
	own(connection, task);
	connection->reported_ns = now_ns;
	if (state != TCP_SYN_SENT && state != TCP_SYN_RECV)
		find_sequences(tcp, connection);
	count(tcp, connection, false, &connection->reported);
}

/* Walks every open file of every process, once at start. */
SEC("iter/task_file")
int tcp_seed(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct connection *connection;
	struct tcp_sock *tcp;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	connection = bpf_sk_storage_get(&connections, sk, NULL, 0);
	if (!connection) {
		seed(tcp, task);
		return 0;
	}
	/* Several processes hold it: the eldest made it, the others inherited it. */
	if ((connection->flags & FLAG_SEEDED) && task->group_leader->start_boottime < connection->owner.start_boot_ns)
		own(connection, task);
	return 0;
}
