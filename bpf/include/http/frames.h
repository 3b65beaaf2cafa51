/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * HTTP/2 (RFC 9113): walks over the frames of a direction, and sends on what user space needs of them.
 *
 * That is the header of a frame, and the payload of those that carry header fields or end something. The payload of
 * DATA is left out, but for the length of its padding. Frames that only steer the connection are left out as if they
 * were not in the stream. So one message for each call at most, and none for the middle of a body.
 */
#ifndef EBPFRECEIVER_HTTP_FRAMES_H
#define EBPFRECEIVER_HTTP_FRAMES_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/message.h"
#include "http/source.h"
#include "http/stream.h"

#define FRAME_HEADER_BYTES    9
#define PREFACE_BYTES	      24
#define MAX_FRAMES	      1024	     /* of a call */
#define MAX_FRAME_BYTES	      MAX_HEAD_BYTES /* captured of a call */
#define COMMON_MAX_FRAME_SIZE 16384	     /* of SETTINGS_MAX_FRAME_SIZE, unless it is raised */

enum frame_type {
	FRAME_DATA,
	FRAME_HEADERS,
	FRAME_PRIORITY,
	FRAME_RST_STREAM,
	FRAME_SETTINGS,
	FRAME_PUSH_PROMISE,
	FRAME_PING,
	FRAME_GOAWAY,
	FRAME_WINDOW_UPDATE,
	FRAME_CONTINUATION,
};

enum frame_flag {
	FRAME_END_STREAM = 0x1,
	FRAME_END_HEADERS = 0x4,
	FRAME_PADDED = 0x8,
	FRAME_HAS_PRIORITY = 0x20,
};

/* How far a call was walked over. In a map, where the verifier does not follow each value that it may have. */
struct walk {
	struct source source;
	__u32 position; /* in the call */
	__u32 length;	/* of the call */
	__u32 have;	/* captured bytes */
	bool truncated;
	bool ended; /* a stream's last frame did */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__uint(value_size, sizeof(struct walk)); /* no type for the Go bindings, which cannot have its pointers */
} walks SEC(".maps");

/* What a walk needs: each in a map. */
struct walker {
	struct walk *walk;
	struct frame_stream *frames;
	struct captured_message *captured;
};

static __always_inline __u32 frame_length(const __u8 *header)
{
	return (__u32)header[0] << 16 | (__u32)header[1] << 8 | header[2];
}

static __always_inline __u32 frame_stream_id(const __u8 *header)
{
	return (__u32)header[5] << 24 | (__u32)header[6] << 16 | (__u32)header[7] << 8 | header[8];
}

/* Whether eight bytes are those of a HEADERS frame as most are: short, whole, and of a stream with a small number. */
static __always_inline bool looks_like_headers_frame(__u64 first)
{
	__u8 flags = first >> 32;

	if ((__u8)first || (__u8)(first >> 8) > COMMON_MAX_FRAME_SIZE >> 8 || (__u8)(first >> 24) != FRAME_HEADERS)
		return false;
	if (!(flags & FRAME_END_HEADERS) ||
	    flags & ~(FRAME_END_STREAM | FRAME_END_HEADERS | FRAME_PADDED | FRAME_HAS_PRIORITY))
		return false;
	return !(__u8)(first >> 40);
}

/* Whether a frame may begin with these bytes: to find the way again where it was lost. */
static __always_inline bool may_be_frame(const __u8 *header)
{
	__u32 length = frame_length(header);
	__u32 stream = frame_stream_id(header);

	if (length > COMMON_MAX_FRAME_SIZE || stream >= 1 << 24)
		return false;
	switch (header[3]) {
	case FRAME_DATA:
		return stream && !(header[4] & ~(FRAME_END_STREAM | FRAME_PADDED));
	case FRAME_HEADERS:
		return stream &&
		       !(header[4] & ~(FRAME_END_STREAM | FRAME_END_HEADERS | FRAME_PADDED | FRAME_HAS_PRIORITY));
	case FRAME_RST_STREAM:
		return stream && length == 4;
	case FRAME_WINDOW_UPDATE:
		return length == 4;
	case FRAME_SETTINGS:
		return !stream && !(length % 6);
	case FRAME_PING:
		return !stream && length == 8;
	case FRAME_GOAWAY:
		return !stream && length >= 8;
	}
	return false;
}

/*
 * Moves a source to the segment in which a place of the call lies. Returns how many bytes it has from there on; 0:
 * there are none to be read.
 */
__noinline __u64 seek(struct source *source, __u32 position)
{
	if (!source)
		return 0;
	for (__u32 segment = 0; segment < MAX_SEGMENTS; segment++) {
		struct iovec next;

		if (position < source->begin + source->size)
			return source->begin + source->size - position;
		if (!source->more || !read_segment(source, source->index, &next))
			return 0;
		source->begin += source->size;
		source->index++;
		source->base = next.iov_base;
		source->size = next.iov_len;
	}
	return 0;
}

/* Reads bytes of a frame's header at a place of the call, after those that are there. Returns how many there are then.
 */
__noinline __u32 read_header(struct source *source, struct frame_stream *frames, __u32 position, __u32 wanted)
{
	__u32 have;

	if (!source || !frames)
		return 0;
	have = frames->header_length & 15;
	for (int piece = 0; piece < FRAME_HEADER_BYTES && have < wanted; piece++) {
		__u64 here = seek(source, position);
		__u32 part = wanted - have;

		if (!here)
			break;
		if (part > here)
			part = here;
		part &= 15;
		if (have > FRAME_HEADER_BYTES || part > FRAME_HEADER_BYTES - have)
			break;
		if (read_source(source, frames->header + have, part, source->base + (position - source->begin)))
			break;
		have += part;
		position += part;
	}
	return have;
}

/* Captures size bytes at a place of the call. Returns how many it could. */
__noinline __u32 capture_at(struct source *source, struct captured_message *captured, __u32 have, __u32 position,
			    __u32 size)
{
	__u32 took = 0;

	if (!source || !captured)
		return 0;
	for (int piece = 0; piece < MAX_SEGMENTS && took < size; piece++) {
		__u64 here = seek(source, position);
		__u32 part = size - took;
		__u32 at = have;

		if (!here)
			break;
		if (part > here)
			part = here;
		part -= 1;
		asm volatile("%0 &= %2\n\t%1 &= %2" : "+r"(part), "+r"(at) : "i"(MAX_HEAD_BYTES - 1));
		part += 1;
		if (read_source(source, captured->data + at, part, source->base + (position - source->begin)))
			break;
		took += part;
		have += part;
		position += part;
	}
	return took;
}

/* Takes note of a frame's header, and captures it if user space wants to know of it. */
static __always_inline void begin_frame(struct walk *walk, struct frame_stream *frames,
					struct captured_message *captured)
{
	__u32 at = walk->have;
	__u8 type = frames->header[3];
	__u8 flags = frames->header[4];

	frames->header_length = 0;
	frames->left = frame_length(frames->header);
	frames->copy = 0;
	frames->silent = false;
	frames->ends = (type == FRAME_DATA || type == FRAME_HEADERS) && flags & FRAME_END_STREAM;
	switch (type) {
	case FRAME_DATA:
		frames->copy = flags & FRAME_PADDED ? 1 : 0;
		break;
	case FRAME_HEADERS:
	case FRAME_RST_STREAM:
	case FRAME_SETTINGS:
	case FRAME_PUSH_PROMISE:
	case FRAME_GOAWAY:
	case FRAME_CONTINUATION:
		frames->copy = frames->left;
		break;
	default:
		frames->silent = true;
		return;
	}
	frames->place += FRAME_HEADER_BYTES;
	if (walk->truncated)
		return;
	if (at > MAX_FRAME_BYTES - FRAME_HEADER_BYTES) {
		walk->truncated = true;
		return;
	}
	asm volatile("%0 &= %1" : "+r"(at) : "i"(MAX_HEAD_BYTES - 1));
	__builtin_memcpy(captured->data + at, frames->header, FRAME_HEADER_BYTES);
	walk->have = at + FRAME_HEADER_BYTES;
	if (!frames->left && frames->ends)
		walk->ended = true;
}

/* Goes on with one frame: its header, or what there is of its payload. Returns 1 where the call ends. */
__noinline long walk_frame(struct walk *walk, struct frame_stream *frames, struct captured_message *captured)
{
	__u32 rest, part, copy;

	if (!walk || !frames || !captured)
		return 1;
	rest = walk->length - walk->position;
	if (!frames->left) {
		__u32 before = frames->header_length;
		__u32 wanted = before + rest < FRAME_HEADER_BYTES ? before + rest : FRAME_HEADER_BYTES;
		__u32 have = read_header(&walk->source, frames, walk->position, wanted);

		if (have != wanted) {
			frames->lost = true;
			return 1;
		}
		walk->position += have - before;
		frames->header_length = have;
		if (have == FRAME_HEADER_BYTES)
			begin_frame(walk, frames, captured);
		return walk->position >= walk->length;
	}
	part = frames->left < rest ? frames->left : rest;
	copy = frames->copy < part ? frames->copy : part;
	if (copy && !walk->truncated) {
		if (walk->have + copy <= MAX_FRAME_BYTES &&
		    capture_at(&walk->source, captured, walk->have, walk->position, copy) == copy)
			walk->have += copy;
		else
			walk->truncated = true;
	}
	frames->copy -= copy;
	frames->left -= part;
	if (!frames->silent)
		frames->place += part;
	walk->position += part;
	if (!frames->left && frames->ends)
		walk->ended = true;
	return walk->position >= walk->length;
}

static long walk_next(__u32 index, struct walker *walker)
{
	long done = walk_frame(walker->walk, walker->frames, walker->captured);

	asm volatile("%0 &= 1" : "+r"(done)); /* the verifier does not know what a function returns */
	return done;
}

/* Tells of nothing before the present place: user space sees that something is missing. */
static __always_inline void leave_gap(struct frame_stream *frames)
{
	frames->place++;
	frames->told = frames->place;
	frames->told_left = frames->silent ? 0 : frames->left;
}

/* Goes on where bytes were moved that were not seen: in a payload that does not matter much, or a frame is to be found.
 */
static __always_inline void pass_hole(struct frame_stream *frames, __u32 offset)
{
	__u32 hole = offset - frames->at;

	frames->at = offset;
	if (hole > frames->left) {
		frames->lost = true;
		return;
	}
	frames->left -= hole;
	if (!frames->silent)
		frames->place += hole;
	if (frames->copy) {
		frames->copy -= frames->copy < hole ? frames->copy : hole;
		leave_gap(frames);
	}
}

/* Whether the way is known from here on. */
static __always_inline bool find_frame(struct walk *walk, struct frame_stream *frames)
{
	if (!frames->lost)
		return true;
	frames->header_length = 0;
	frames->left = 0;
	frames->copy = 0;
	if (walk->length - walk->position < FRAME_HEADER_BYTES ||
	    read_header(&walk->source, frames, walk->position, FRAME_HEADER_BYTES) != FRAME_HEADER_BYTES ||
	    !may_be_frame(frames->header))
		return false;
	frames->lost = false;
	leave_gap(frames);
	return true;
}

static __always_inline void report_frames(struct http_socket *socket, struct call *call, struct walker *walker)
{
	struct frame_stream *frames = walker->frames;
	struct captured_message *captured = walker->captured;

	captured->message = call->message;
	captured->message.kind = MESSAGE_FRAMES;
	captured->message.offset = frames->told;
	captured->message.length = frames->place - frames->told;
	captured->message.frame_left = frames->told_left;
	captured->message.captured = walker->walk->have;
	if (walker->walk->truncated)
		captured->message.flags |= MESSAGE_TRUNCATED;
	if (frames->begins)
		captured->message.flags |= MESSAGE_BEGINNING;
	frames->begins = false;
	frames->told = frames->place;
	frames->told_left = frames->silent ? 0 : frames->left;
	note_goroutine(&socket->go, captured);
	report_captured(captured);
}

/*
 * A call on a connection of HTTP/2. What a process sends is taken as sent at once, though some of it may have to wait:
 * what it does not send now it has to send next.
 */
__noinline int follow_frames(struct http_socket *socket, struct source *source, struct call *call)
{
	struct walker walker = {};
	struct frame_stream *frames;
	struct walk *walk;
	__u32 which;
	__s32 ahead;

	if (!socket || !source || !call)
		return 0;
	which = call->scratch;
	walker.walk = walk = bpf_map_lookup_elem(&walks, &which);
	walker.captured = bpf_map_lookup_elem(&scratch, &which);
	walker.frames = frames = &socket->frames[call->message.direction & 1];
	if (!walk || !walker.captured)
		return 0;
	ahead = call->offset - frames->at;
	if ((__s32)(ahead + call->length) <= 0)
		return 0;
	walk->source = *source;
	walk->position = 0;
	walk->length = call->length;
	walk->have = 0;
	walk->truncated = false;
	walk->ended = false;
	if (ahead > 0)
		pass_hole(frames, call->offset);
	else
		walk->position = -ahead;
	if (find_frame(walk, frames))
		bpf_loop(MAX_FRAMES, walk_next, &walker, 0);
	frames->at = call->offset + call->length;
	if (walk->position < call->length)
		frames->lost = true;
	if (walk->have || walk->ended || walk->truncated)
		report_frames(socket, call, &walker);
	return 0;
}

/* A client's preface of HTTP/2 begins with the call, or with the bytes right before it. */
static __always_inline void begin_frames(struct http_socket *socket, struct call *call)
{
	struct frame_stream *frames = &socket->frames[call->message.direction & 1];
	struct frame_stream *answers = &socket->frames[!call->message.direction];

	__builtin_memset(frames, 0, sizeof(*frames));
	__builtin_memset(answers, 0, sizeof(*answers));
	frames->at = call->offset;
	frames->left = PREFACE_BYTES - call->prefix_length;
	frames->silent = true;
	frames->place = PREFACE_BYTES;
	frames->begins = true;
	answers->at = call->answers_at;
	/* A server may have sent its first frame before it has read the client's; or a response of HTTP/1. */
	answers->lost = answers->at > 1;
	answers->place = answers->lost ? PREFACE_BYTES : 0;
}

/* A connection of HTTP/2 that stood before: a HEADERS frame begins with the call. */
static __always_inline void join_frames(struct http_socket *socket, struct call *call)
{
	struct frame_stream *frames = &socket->frames[call->message.direction & 1];
	struct frame_stream *answers = &socket->frames[!call->message.direction];

	socket->protocol = PROTOCOL_HTTP2;
	__builtin_memset(frames, 0, sizeof(*frames));
	__builtin_memset(answers, 0, sizeof(*answers));
	frames->at = call->offset;
	frames->place = PREFACE_BYTES; /* there was more before */
	leave_gap(frames);
	answers->at = call->answers_at;
	answers->place = PREFACE_BYTES;
	answers->lost = true;
}

#endif
