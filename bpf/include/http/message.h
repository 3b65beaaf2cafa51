/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* What the HTTP probe sends to user space. */
#ifndef EBPFRECEIVER_HTTP_MESSAGE_H
#define EBPFRECEIVER_HTTP_MESSAGE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define MAX_HEAD_BYTES 4096 /* a power of two */

enum message_kind {
	MESSAGE_HEAD = 1,   /* looks like the first bytes of a request or response of HTTP/1 */
	MESSAGE_DATA,	    /* further bytes on a socket that has carried a head */
	MESSAGE_FRAMES,	    /* of HTTP/2; captured is what frames.h leaves of them */
	MESSAGE_CONNECTION, /* a message_head follows: whose the messages are that come next on this connection */
	MESSAGE_END,	    /* the socket is freed */
	MESSAGE_WAKE,	    /* of no connection: a program is to be attached, see indirect.h */
	MESSAGE_TABLE,	    /* a table of header fields in a program of Go: see go_tables.h */
	MESSAGE_STREAM,	    /* who serves a stream in a program of Go, or asks with it: see go_streams.h */
	MESSAGE_ROUTE,	    /* the pattern that a mux of Go has found, which was captured: see go_routes.h */
};

enum message_direction {
	MESSAGE_RECEIVED,
	MESSAGE_SENT,
};

enum message_flag {
	MESSAGE_TRUNCATED =
		2, /* frames: not all that is wanted of this call was captured; table: the oldest are missing */
	MESSAGE_BEGINNING = 4, /* frames: a client's preface comes before them; connection: it begins */
	MESSAGE_SECURE =
		8, /* TLS has carried it: offset and length are of what was encrypted; connection: it carries TLS */
	MESSAGE_LAST_BYTES = 16, /* data: what was captured are the last bytes of the call, not its first */
};

/* Bytes that calls moved. What was captured of them follows. */
struct message {
	__u64 time_ns;
	__u64 cookie; /* table, stream, route: the thread group id of the program, instead */
	__u64 tail; /* the last bytes of the call, at most 8, in the order of the stream from the lowest; 0: not known;
		       table: the first of the block; stream: the goroutine that is about to send the request */
	__u32 offset; /* of the first byte in its direction's stream, modulo 2^32; frames: among those that are told of;
			  table: the stream of the block; stream: its number */
	__u32 length; /* how many bytes were moved, or are about to be for certain; at the end: the offset after all
			 bytes received; table: of the first frame of the block, written: of its fragment;
			 stream: the event, see go_streams.h; route: of the pattern, also where it was not captured */
	__u32 srtt_us; /* 0: not known */
	__u32 retransmits;
	__u32 tid;	  /* the thread that made the call */
	__u32 frame_left; /* frames: what at offset is still to come of the payload of the frame under way; table: 1:
			     the block ends its stream */
	__s32 error;	  /* at the end: sk_err; else -EFAULT where the first bytes are in memory that cannot be read */
	__u16 captured;
	__u8 kind;
	__u8 direction;
	__u8 flags;
	__u8 reserved[3];
	__u32 lost;		/* how many messages found no room so far, of all connections */
	__u64 goroutine;	/* where bytes were captured: that of Go which made the call; 0: not known, or none */
	__u64 parent_goroutine; /* the one that started it */
};

/* Whose the bytes are, and on which connection. User space remembers it until it is told anew. */
struct message_head {
	__u64 start_boot_ns; /* task_struct.start_boottime of the process */
	__u64 cgroup_id;
	__u32 pid; /* thread group id in the initial namespace */
	__u32 reserved;
	__u8 comm[16];
	__u8 local_address[16]; /* as the socket has it: the first four bytes for AF_INET */
	__u8 peer_address[16];
	__u32 local_sequence; /* first sequence number after the SYN, each way */
	__u32 remote_sequence;
	__u16 local_port;
	__u16 peer_port;
	__u16 family;
	__u8 unused[2];
};

struct captured_message {
	struct message message;
	__u8 data[2 * MAX_HEAD_BYTES]; /* twice: a bound that the verifier can follow */
};

_Static_assert(sizeof(struct message) % 8 == 0, "a ring keeps its events aligned to 8 bytes");
_Static_assert(__builtin_offsetof(struct captured_message, data) == sizeof(struct message), "no padding between them");

/* How a connection is told of. */
struct described_connection {
	struct message message;
	struct message_head head;
};

_Static_assert(__builtin_offsetof(struct described_connection, head) == sizeof(struct message),
	       "no padding between them");
_Static_assert(sizeof(struct described_connection) == sizeof(struct message) + sizeof(struct message_head),
	       "no padding");

/* Type information is kept for what a global refers to: these are for the Go bindings alone. */
const struct message *keep_message __attribute__((unused));
const struct message_head *keep_message_head __attribute__((unused));
const enum message_kind *keep_message_kind __attribute__((unused));
const enum message_direction *keep_message_direction __attribute__((unused));
const enum message_flag *keep_message_flag __attribute__((unused));

#endif
