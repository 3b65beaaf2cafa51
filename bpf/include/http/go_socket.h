/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* Which socket a net.Conn of a program of Go is. */
#ifndef EBPFRECEIVER_HTTP_GO_SOCKET_H
#define EBPFRECEIVER_HTTP_GO_SOCKET_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "tcp.h"

#define SOCK_STREAM 1

enum go_socket_layout {
	GO_INTERFACE_DATA =
		8,	  /* the second word of an interface: of a net.Conn *net.TCPConn, whose first is a *net.netFD */
	GO_FD_CLOSED = 1, /* in go_fd.state: mutexClosed */
};

/* The beginning of net.netFD of Go 1.20 to 1.26. */
struct go_fd {
	__u64 state; /* pfd.fdmu */
	__u64 semaphores;
	__s64 descriptor; /* pfd.Sysfd */
	__u64 polling[4];
	__s64 family;
	__s64 type;
};

/* The TCP socket that a descriptor of the current process is; NULL: it is none. */
static __always_inline struct sock *socket_of(__s64 descriptor)
{
	struct fdtable *table = bpf_get_current_task_btf()->files->fdt;
	struct socket *socket;
	struct file *file;
	struct sock *sk;

	if (descriptor < 0 || descriptor >= table->max_fds)
		return NULL;
	if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + descriptor) || !file)
		return NULL;
	socket = bpf_rdonly_cast(BPF_CORE_READ(file, private_data), bpf_core_type_id_kernel(struct socket));
	if (!socket || socket->file != file)
		return NULL;
	sk = socket->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP)
		return NULL;
	return sk;
}

/* The socket of the net.Conn at an address; NULL if that is none of TCP, or is closed. */
static __always_inline struct sock *go_socket(__u64 connection, bool *closed)
{
	struct go_fd fd;
	__u64 address = 0;

	if (bpf_probe_read_user(&address, sizeof(address), (const void *)(connection + GO_INTERFACE_DATA)) ||
	    bpf_probe_read_user(&address, sizeof(address), (const void *)address) ||
	    bpf_probe_read_user(&fd, sizeof(fd), (const void *)address))
		return NULL;
	/* A program may have put a net.Conn of its own around it. */
	if (fd.type != SOCK_STREAM || (fd.family != AF_INET && fd.family != AF_INET6))
		return NULL;
	*closed = fd.state & GO_FD_CLOSED;
	return *closed ? NULL : socket_of(fd.descriptor); /* its descriptor may be another's by now */
}

#endif
