/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* What the probes know of a TCP socket alike. */
#ifndef EBPFRECEIVER_TCP_H
#define EBPFRECEIVER_TCP_H

#include "vmlinux.h"

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

#endif
