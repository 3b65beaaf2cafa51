/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * The part of the kernel's types that our programs use, by subject.
 *
 * Only the named fields matter: preserve_access_index turns every access into a CO-RE relocation, so the offsets come
 * from the running kernel's BTF. The same file serves amd64 and arm64, because no program reads registers from it.
 * Names and types are those of Linux 6.18 (include/net/sock.h, include/linux/tcp.h, ...); fields that older kernels
 * name otherwise have a ___flavour beside them.
 */
#ifndef EBPFRECEIVER_VMLINUX_H
#define EBPFRECEIVER_VMLINUX_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
typedef __u64 size_t; /* unsigned long on both architectures */

#define NULL  ((void *)0)
#define true  1
#define false 0

/* include/uapi/linux/bpf.h: values are ABI. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

enum {
	BPF_F_NO_PREALLOC = 1U << 0,
	BPF_F_CLONE = 1U << 9,
	BPF_F_MMAPABLE = 1U << 10,
	BPF_F_INNER_MAP = 1U << 12,
};

enum {
	BPF_SK_STORAGE_GET_F_CREATE = 1ULL << 0,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1ULL << 0,
};

enum {
	BPF_RB_NO_WAKEUP = 1ULL << 0,
	BPF_RB_FORCE_WAKEUP = 1ULL << 1,
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
};

#define BPF_F_CURRENT_CPU 0xffffffffULL

/* include/uapi/linux/in.h, include/linux/socket.h, include/net/tcp_states.h: values are ABI. */
#define IPPROTO_TCP 6
#define AF_INET	    2
#define AF_INET6    10

enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* ---- tasks (include/linux/sched.h) ---- */

#define PF_FORKNOEXEC 0x00000040
#define PF_KTHREAD    0x00200000

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

struct mm_struct {
	unsigned long exec_vm;
	unsigned long arg_start;
	unsigned long arg_end;
	unsigned long env_start;
	unsigned long env_end;
};

struct signal_struct {
	atomic_t live;
};

struct thread_struct {
	unsigned long fsbase; /* of amd64 */
};

struct task_struct {
	struct thread_struct thread;
	unsigned int __state;
	unsigned int flags;
	struct mm_struct *mm;
	int pid;
	int tgid;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct signal_struct *signal;
	struct files_struct *files;
	char comm[16];
};

struct file {
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

/* include/linux/binfmts.h */
struct linux_binprm {
	const char *interp;
};

/* Before 5.5. */
struct task_struct___before_5_5 {
	__u64 real_start_time;
};

/* ---- cgroups (include/linux/cgroup-defs.h, include/linux/kernfs.h) ---- */

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* ---- network namespaces (include/net/net_namespace.h) ---- */

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

/* ---- sockets (include/net/sock.h, include/net/inet_sock.h) ---- */

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};

typedef struct {
	int owned;
} socket_lock_t;

enum sock_flags {
	SOCK_DEAD,
	SOCK_DONE,
	SOCK_URGINLINE,
	SOCK_KEEPOPEN,
	SOCK_LINGER,
};

struct sock_common {
	union {
		struct {
			__be32 skc_daddr;
			__be32 skc_rcv_saddr;
		};
	};
	union {
		struct {
			__be16 skc_dport;
			__u16 skc_num;
		};
	};
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_reuse : 4;
	unsigned char skc_reuseport : 1;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	union {
		unsigned long skc_flags;
	};
};

struct sock;

/* include/linux/skbuff.h */
struct sk_buff {
	struct sock *sk;
	char cb[48];
	unsigned int len;
};

struct sk_buff_head {
	struct sk_buff *prev;
};

/* What TCP keeps in sk_buff.cb (include/net/tcp.h). tcp_flags has 16 bits since 6.15, those of before are the first. */
struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq;
	__u8 tcp_flags;
};

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	struct sk_buff_head sk_receive_queue;
	atomic_t sk_drops;
	int sk_rcvbuf;
	int sk_sndbuf;
	int sk_err;
	__u32 sk_priority;
	__u32 sk_mark;
	__u16 sk_protocol;
	__u8 sk_shutdown;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
	__u8 tos;
};

struct tcp_congestion_ops {
	char name[16];
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const struct tcp_congestion_ops *icsk_ca_ops;
	__u32 icsk_user_timeout;
};

struct minmax_sample {
	__u32 t;
	__u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

/* ---- TCP (include/linux/tcp.h) ---- */

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 mss_cache;
	__u32 snd_cwnd;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
	__u32 copied_seq;
	__u32 rttvar_us;
	struct minmax rtt_min;
	__u32 segs_out;
	__u32 segs_in;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 bytes_acked;
	__u64 bytes_retrans;
	__u32 srtt_us;
	__u32 total_retrans;
	__u8 nonagle : 4;
};

/* include/uapi/linux/bpf.h */
struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));

struct request_sock;

/* ---- messages of socket calls (include/linux/socket.h, include/linux/uio.h, include/uapi/linux/uio.h) ---- */

enum iter_type {
	ITER_UBUF,
	ITER_IOVEC,
};

struct iovec {
	void *iov_base;
	size_t iov_len;
};

struct iov_iter {
	__u8 iter_type;
	size_t iov_offset;
	union {
		const struct iovec *__iov;
		void *ubuf;
	};
	size_t count;
	unsigned long nr_segs;
};

struct msghdr {
	struct iov_iter msg_iter;
};

/* ---- iterators (kernel/bpf/bpf_iter.c, net/core/bpf_sk_storage.c, kernel/bpf/task_iter.c) ---- */

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_map;

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

#endif
