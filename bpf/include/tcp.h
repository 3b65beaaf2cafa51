/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* What the probes know of a TCP socket alike. */
#ifndef EBPFRECEIVER_TCP_H
#define EBPFRECEIVER_TCP_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym __weak;

/*
 * What a socket of TCP is beyond a struct sock, for reading. Costs nothing where the kernel has the cast (6.2); the
 * caller knows that the socket's protocol is TCP.
 */
static __always_inline struct tcp_sock *tcp_of(struct sock *sk)
{
	if (bpf_rdonly_cast)
		return bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
	return bpf_skc_to_tcp_sock(sk);
}

/* An accepted socket is a copy of its listener, and keeps the listener's backlog limit. */
static __always_inline bool tcp_was_accepted(struct sock *sk)
{
	return sk->sk_max_ack_backlog != 0;
}

/*
 * The first sequence number after the SYN, each way: the same pair on both ends, and the place from which bytes of the
 * streams are counted. The counters tell, also long after the handshake. bytes_acked counts the client's own SYN;
 * bytes_received counts no SYN.
 */
static __always_inline __u32 tcp_first_sequence_sent(struct tcp_sock *tcp, bool client)
{
	return tcp->snd_una - (__u32)tcp->bytes_acked + client;
}

static __always_inline __u32 tcp_first_sequence_received(struct tcp_sock *tcp)
{
	return tcp->rcv_nxt - (__u32)tcp->bytes_received;
}

/* Whether the peer has ended its stream, and all before that has arrived. */
static __always_inline bool tcp_fin_received(struct tcp_sock *tcp)
{
	/* tcp_fin() alone sets SOCK_DONE; sk_shutdown is also set by the application's own shutdown(). */
	return tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags &
	       (1UL << bpf_core_enum_value(enum sock_flags, SOCK_DONE));
}

/*
 * The sequence number after the last byte that the process has read. The peer's FIN takes a sequence number as well,
 * and copied_seq passes it in the very call that reads the last bytes.
 */
static __always_inline __u32 tcp_sequence_read(struct tcp_sock *tcp)
{
	__u32 copied = tcp->copied_seq;

	return copied - (tcp_fin_received(tcp) && copied == tcp->rcv_nxt);
}

#define TCPHDR_FIN 0x01 /* include/net/tcp.h */

/*
 * The payload in order that has arrived. The kernel counts a segment, then queues it, and only then marks that it had a
 * FIN, which is counted too (tcp_data_queue()). So whoever has not locked the socket leaves the last byte out until the
 * process has read it, or the queue shows that it is none: what is left out is told the next time. first is the
 * sequence number of the first byte; 0: not known. By it is seen that the kernel has counted a segment and not moved
 * rcv_nxt yet.
 */
static __always_inline __u64 tcp_payload_received(struct tcp_sock *tcp, bool locked, __u32 first)
{
	struct sock *sk = &tcp->inet_conn.icsk_inet.sk;
	/* What is told of the byte is read after the count, so that it tells of this byte or of a later one. */
	__u64 received = *(volatile __u64 *)&tcp->bytes_received;
	__u32 next = *(volatile __u32 *)&tcp->rcv_nxt;
	__u32 copied = *(volatile __u32 *)&tcp->copied_seq;
	__u32 excess = (__u32)received - (next - first);
	struct sk_buff *last;
	__u32 end = 0;
	__u8 flags = 0;

	if (!locked && first && (__s32)excess > 0 && excess <= received)
		received -= excess;
	if (!received)
		return 0;
	if (tcp_fin_received(tcp))
		return received - 1;
	if (locked || copied == next)
		return received;
	last = sk->sk_receive_queue.prev;
	bpf_probe_read_kernel(&end, sizeof(end), last->cb + bpf_core_field_offset(struct tcp_skb_cb, end_seq));
	bpf_probe_read_kernel(&flags, sizeof(flags), last->cb + bpf_core_field_offset(struct tcp_skb_cb, tcp_flags));
	return received - (end != next || flags & TCPHDR_FIN);
}

/* The cgroup that made the socket; 0: not known. */
static __always_inline __u64 tcp_cgroup_id(struct sock *sk)
{
	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup)) /* since 5.15; before, it is packed with other things */
		return sk->sk_cgrp_data.cgroup->kn->id;
	return 0;
}

/* Both addresses as the socket has them, 16 bytes each: the first four for AF_INET, and the rest is left alone. */
static __always_inline void tcp_addresses(struct sock_common *common, __u8 *local, __u8 *peer)
{
	if (common->skc_family == AF_INET6) {
		__builtin_memcpy(local, &common->skc_v6_rcv_saddr, 16);
		__builtin_memcpy(peer, &common->skc_v6_daddr, 16);
	} else {
		*(__be32 *)local = common->skc_rcv_saddr;
		*(__be32 *)peer = common->skc_daddr;
	}
}

#endif
