/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * What the header fields of HTTP/2 mean on connections of Go that are older than the receiver. HPACK refers to fields
 * by their index in a table that both ends have built up since the connection began (RFC 7541 section 2.3.2), so who
 * has missed the beginning does not know them. The program itself has the table: it is read once, as it was at a header
 * block that is known by its stream, its length, its first bytes and the goroutine that reads or writes it.
 *
 * All implementations (net/http, golang.org/x/net/http2 and with it grpc-go) have their tables in golang.org/x/net's
 * hpack, and go through the same functions:
 *
 *   (*Framer).readMetaFrame --> hpack (*Decoder).Write      the table as it was before that block
 *   hpack (*Encoder).WriteField --> (*Framer).WriteHeaders  the table as it is after that block
 *
 * each pair in one goroutine, which is also the one that has received the frame, or will send it.
 */
#ifndef EBPFRECEIVER_HTTP_GO_TABLES_H
#define EBPFRECEIVER_HTTP_GO_TABLES_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/frames.h"
#include "http/goroutine.h"
#include "http/message.h"
#include "http/stream.h"
#include "http/tls.h"
#include "loss.h"

/* The cookie of a uprobe: which function begins, with its arguments. */
enum go_table_event {
	GO_FRAME_READ = 1, /* (*Framer, *HeadersFrame) */
	GO_BLOCK_READ,	   /* (*Decoder, ...) */
	GO_FIELD_WRITTEN,  /* (*Encoder, ...) */
	GO_FRAME_WRITTEN,  /* (*Framer); its HeadersFrameParam is too large for registers, and on the stack */
};

const enum go_table_event *keep_go_table_event __attribute__((unused));

/* Places in structures of golang.org/x/net/http2 and its hpack since 2017, as they are on machines of 64 bits. */
enum go_table_layout {
	GO_HEADERS_FRAME_LENGTH = 4, /* HeadersFrame.FrameHeader: valid, Type and Flags before it; StreamID after it */
	GO_WRITTEN_STREAM = 8,	     /* HeadersFrameParam.StreamID, from the stack pointer: after the return address */
	GO_WRITTEN_BLOCK = 8 + 8,    /* its BlockFragment's address, likewise */
	GO_WRITTEN_LENGTH = 8 + 8 + 8, /* and length */
	GO_WRITTEN_END = 8 + 8 + 24,   /* its EndStream */
	GO_TABLE_FIELDS = 1024,	       /* told of a table at most */
};

/* The begin of hpack.Decoder and of hpack.Encoder: dynTab.table.ents, a slice with the oldest first. */
struct go_table {
	__u64 fields;
	__u64 count;
};

/* http2.FrameHeader, with which HeadersFrame begins. */
struct go_frame_header {
	__u8 valid;
	__u8 type;
	__u8 flags;
	__u8 reserved;
	__u32 length;
	__u32 stream;
};

/* What a header block is known by. */
struct go_block {
	__u64 first;  /* its first bytes; those that it does not have are anything */
	__u32 length; /* of its first frame; written: of the part of the block in it */
	__u32 stream;
	bool ends; /* the stream */
	__u8 reserved[7];
};

/* hpack.HeaderField */
struct go_header_field {
	__u64 name;
	__u64 name_length;
	__u64 value;
	__u64 value_length;
	__u64 sensitive;
};

/* How a field is told: its name and value follow. */
struct go_table_field {
	__u16 name_length;
	__u16 value_length;
};

/* Processes whose tables are wanted, and how often that was asked for. Owner: user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32); /* thread group id in the initial namespace */
	__type(value, __u32);
} go_table_processes SEC(".maps");

/* What a goroutine is at. */
struct go_table_work {
	__u64 encoder;	       /* that it writes fields with, since it has written a frame; or 0 */
	struct go_block reads; /* its stream is 0: none, or its block is under way */
};

/* By the address of the goroutine's struct g. Owner: the oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct go_address);
	__type(value, struct go_table_work);
} go_table_works SEC(".maps");

/* Tables that were told, at which asking. Owner: the oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct go_address);
	__type(value, __u32);
} go_tables_told SEC(".maps");

/* A table on its way to user space. */
struct go_table_reader {
	struct captured_message *captured;
	__u64 fields; /* address of the first */
	__u64 count;
	__u32 have; /* captured bytes */
	bool truncated;
};

/* Tells of one field, the newest first. Returns 1 where there is no more, or no room. */
static long tell_go_field(__u32 index, struct go_table_reader *reader)
{
	struct captured_message *captured = reader->captured;
	struct go_header_field field;
	struct go_table_field told;
	__u32 at = reader->have;
	__u32 name_length, value_length;

	if (index >= reader->count)
		return 1;
	if (bpf_probe_read_user(&field, sizeof(field),
				(const void *)(reader->fields + (reader->count - 1 - index) * sizeof(field))) ||
	    field.name_length >= MAX_HEAD_BYTES || field.value_length >= MAX_HEAD_BYTES ||
	    at + sizeof(told) + field.name_length + field.value_length > MAX_HEAD_BYTES) {
		reader->truncated = true;
		return 1;
	}
	told.name_length = name_length = field.name_length;
	told.value_length = value_length = field.value_length;
	asm volatile("%0 &= %1" : "+r"(at) : "i"(MAX_HEAD_BYTES - 1));
	__builtin_memcpy(captured->data + at, &told, sizeof(told));
	at += sizeof(told);
	asm volatile("%0 &= %2\n\t%1 &= %2" : "+r"(at), "+r"(name_length) : "i"(MAX_HEAD_BYTES - 1));
	if (bpf_probe_read_user(captured->data + at, name_length, (const void *)field.name)) {
		reader->truncated = true;
		return 1;
	}
	at += name_length;
	asm volatile("%0 &= %2\n\t%1 &= %2" : "+r"(at), "+r"(value_length) : "i"(MAX_HEAD_BYTES - 1));
	if (bpf_probe_read_user(captured->data + at, value_length, (const void *)field.value)) {
		reader->truncated = true;
		return 1;
	}
	reader->have += sizeof(told) + told.name_length + told.value_length;
	return 0;
}

/* Tells of a table as it is at a header block, where it was not told since it was asked for. */
static __always_inline int tell_go_table(struct pt_regs___goroutine *ctx, __u32 asked, __u64 address, __u8 direction,
					 struct go_block *block)
{
	struct go_address key = {.address = address, .pid = bpf_get_current_pid_tgid() >> 32};
	struct go_process *process = current_go_process();
	__u32 *told = bpf_map_lookup_elem(&go_tables_told, &key);
	struct go_table_reader reader = {};
	struct message *message;
	struct go_table table;
	__u32 which;

	if (!process || (told && *told == asked))
		return 0;
	if (bpf_probe_read_user(&table, sizeof(table), (const void *)address))
		return 0;
	which = take_scratch();
	if (which >= SCRATCHES)
		return 0; /* the table of a later block will do */
	reader.captured = bpf_map_lookup_elem(&scratch, &which);
	if (reader.captured) {
		message = &reader.captured->message;
		begin_message(message, direction);
		read_goroutine(process, goroutine_address(ctx), goroutine_stack(ctx), &message->goroutine,
			       &message->parent_goroutine);
		message->kind = MESSAGE_TABLE;
		message->cookie = key.pid;
		message->offset = block->stream;
		message->length = block->length;
		message->tail = block->first;
		message->frame_left = block->ends;
		reader.fields = table.fields;
		reader.count = table.count;
		bpf_loop(GO_TABLE_FIELDS, tell_go_field, &reader, 0);
		if (reader.truncated || table.count > GO_TABLE_FIELDS)
			message->flags |= MESSAGE_TRUNCATED;
		message->captured = reader.have;
		report_captured(reader.captured);
		bpf_map_update_elem(&go_tables_told, &key, &asked, BPF_ANY);
	}
	release_scratch(which);
	return 0;
}

static __always_inline int go_table(struct pt_regs___goroutine *ctx, __u64 event)
{
	struct go_address key = {.address = goroutine_address(ctx), .pid = bpf_get_current_pid_tgid() >> 32};
	__u32 *asked = bpf_map_lookup_elem(&go_table_processes, &key.pid);
	struct go_table_work *work, fresh = {};
	struct go_frame_header frame;
	struct go_block block = {};
	__u64 encoder, length, stack = goroutine_stack(ctx);

	if (!asked)
		return 0;
	work = bpf_map_lookup_elem(&go_table_works, &key);
	if (!work) {
		if (event == GO_BLOCK_READ || event == GO_FRAME_WRITTEN)
			return 0; /* the other half of it was not seen */
		bpf_map_update_elem(&go_table_works, &key, &fresh, BPF_ANY);
		work = bpf_map_lookup_elem(&go_table_works, &key);
		if (!work)
			return 0;
	}
	switch (event) {
	case GO_FRAME_READ:
		work->reads.stream = 0;
		if (bpf_probe_read_user(&frame, sizeof(frame), (const void *)second_argument(ctx)))
			return 0;
		work->reads.ends = frame.flags & FRAME_END_STREAM;
		work->reads.length = frame.length;
		work->reads.stream = frame.stream;
		return 0;
	case GO_BLOCK_READ:
		block = work->reads;
		work->reads.stream = 0; /* what comes of it in further frames is not its beginning */
		if (!block.stream ||
		    bpf_probe_read_user(&block.first, sizeof(block.first), (const void *)second_argument(ctx)))
			return 0;
		return tell_go_table(ctx, *asked, first_argument(ctx), MESSAGE_RECEIVED, &block);
	case GO_FIELD_WRITTEN:
		work->encoder = first_argument(ctx);
		return 0;
	case GO_FRAME_WRITTEN:
		encoder = work->encoder;
		work->encoder = 0;
		if (!encoder ||
		    bpf_probe_read_user(&block.stream, sizeof(block.stream),
					(const void *)(stack + GO_WRITTEN_STREAM)) ||
		    bpf_probe_read_user(&block.ends, sizeof(block.ends), (const void *)(stack + GO_WRITTEN_END)) ||
		    bpf_probe_read_user(&length, sizeof(length), (const void *)(stack + GO_WRITTEN_LENGTH)) ||
		    bpf_probe_read_user(&block.first, sizeof(block.first), (const void *)(stack + GO_WRITTEN_BLOCK)) ||
		    bpf_probe_read_user(&block.first, sizeof(block.first), (const void *)block.first))
			return 0;
		block.length = length;
		return tell_go_table(ctx, *asked, encoder, MESSAGE_SENT, &block);
	}
	return 0;
}

#endif
