/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Who asks in a program of Go: net/http has the requests of HTTP/1 written by a goroutine of the connection's own, so
 * the goroutine that makes the system call says nothing. A uprobe where a request is handed to the connection
 * (net/http.(*persistConn).roundTrip) notes the goroutine that waits for the response, for the head that the
 * connection's socket sends next.
 */
#ifndef EBPFRECEIVER_HTTP_GO_CLIENT_H
#define EBPFRECEIVER_HTTP_GO_CLIENT_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "http/go_socket.h"
#include "http/goroutine.h"
#include "http/message.h"
#include "loss.h"
#include "tcp.h"

/* A goroutine that waits for the response to a request which is not sent yet. */
struct go_caller {
	__u64 goroutine;
	__u64 parent_goroutine;
	__u32 pid;
	__u32 reserved;
};

/*
 * By the address of the socket (struct sock), or where it carries TLS by its cookie, which is less than any address.
 * Owner: the request that is sent takes its entry with it; of those that are not sent, the oldest go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct go_caller);
} go_callers SEC(".maps");

/* Notes in the message of a request's head who waits for the response. */
static __always_inline void take_go_caller(struct known_go *known, __u64 socket, struct message *message)
{
	struct go_caller *caller;

	if (!known_go_process(known))
		return;
	caller = bpf_map_lookup_elem(&go_callers, &socket);
	if (!caller)
		return;
	if (caller->pid == bpf_get_current_pid_tgid() >> 32) {
		message->goroutine = caller->goroutine;
		message->parent_goroutine = caller->parent_goroutine;
	}
	bpf_map_delete_elem(&go_callers, &socket);
}

/* Places in net/http.persistConn of Go 1.20 to 1.26. */
enum go_client_layout {
	GO_PERSIST_CONN = 80,	    /* conn, an interface */
	GO_PERSIST_CONN_STATE = 96, /* tlsState, NULL: it does not carry TLS */
};

/* At the begin of net/http.(*persistConn).roundTrip: the connection, the goroutine, and where its stack is. */
static __always_inline int note_go_caller(__u64 connection, __u64 g, __u64 stack)
{
	struct go_process *process = current_go_process();
	struct go_caller caller = {.pid = bpf_get_current_pid_tgid() >> 32};
	struct sock *sk;
	bool closed = false;
	__u64 state = 0;
	__u64 key;

	if (!process)
		return 0;
	read_goroutine(process, g, stack, &caller.goroutine, &caller.parent_goroutine);
	if (!caller.goroutine ||
	    bpf_probe_read_user(&state, sizeof(state), (const void *)(connection + GO_PERSIST_CONN_STATE)))
		return 0;
	connection += GO_PERSIST_CONN;
	/* In TLS, the interface has a *crypto/tls.Conn, which begins with that of the socket. */
	if (state &&
	    bpf_probe_read_user(&connection, sizeof(connection), (const void *)(connection + GO_INTERFACE_DATA)))
		return 0;
	sk = go_socket(connection, &closed);
	if (!sk)
		return 0;
	key = state ? (__u64)sk->__sk_common.skc_cookie.counter : (__u64)sk;
	if (key && bpf_map_update_elem(&go_callers, &key, &caller, BPF_ANY))
		count_loss(LOSS_STORAGE_FULL);
	return 0;
}

#endif
