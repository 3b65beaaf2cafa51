/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Tables that say how to get from a frame to its caller's: internal/unwind makes them, its package documentation has
 * their layout.
 *
 * A table is a map of its own, with an index in front: entry n of the index is for the addresses whose bits above shift
 * are n, and has the first and the last row that may be the one for such an address.
 */
#ifndef EBPFRECEIVER_CPU_TABLE_H
#define EBPFRECEIVER_CPU_TABLE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "cpu/process.h"

struct row {
	__u32 address;
	__s16 offset;
	__u8 rule;
	__s8 frame_pointer;
};

struct bucket {
	__u32 low, high; /* rows, counted without the index */
};

/* What rule has: internal/unwind, Rule. */
enum rule {
	RULE_NONE,
	RULE_END,
	RULE_UNSUPPORTED,
	RULE_SIGNAL,
	RULE_PLT,
	RULE_GO,
	RULE_STACK,
	RULE_FRAME,
	RULE_STACK_DEREF,
	RULE_STACK_DEREF_WORD,
	RULE_FRAME_DEREF,
	RULE_FRAME_DEREF_WORD,
	RULE_CFA_MASK = 0x1f,
	RULE_RETURN_BELOW = 0 << 5,
	RULE_RETURN_LINK = 1 << 5,
	RULE_RETURN_BESIDE = 2 << 5,
	RULE_RETURN_ALONE = 3 << 5,
	RULE_RETURN_MASK = 3 << 5,
	RULE_REGISTER = 1 << 7,
};

/* What frame_pointer has that is no distance from the CFA. */
enum {
	FRAME_POINTER_KEPT = -128,
	FRAME_POINTER_AT_ITSELF = -127,
};

const enum rule *keep_rule __attribute__((unused));

_Static_assert(sizeof(struct row) == 8 && sizeof(struct bucket) == 8, "user space writes them as arrays of 8 bytes");

/* Owner: user space, which drops tables that no process uses. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(map_flags, BPF_F_INNER_MAP);
			__uint(max_entries, 1);
			__type(key, __u32);
			__uint(value_size, sizeof(struct row));
		});
} tables SEC(".maps");

#define TABLE_SEARCH_STEPS 24

/* Finds the row for an address: the last that does not begin behind it. */
static __always_inline bool find_row(const struct mapping *mapping, __u64 address, struct row *found)
{
	__u32 slot = mapping->table, wanted = address, index = wanted >> (mapping->shift & 31);
	__u32 buckets = mapping->buckets, low, high;
	struct bucket *bucket;
	struct row *row;
	void *table;

	table = bpf_map_lookup_elem(&tables, &slot);
	if (!table || address >> 32 || !buckets)
		return false;
	if (index >= buckets) /* the last row holds for all that is behind it */
		index = buckets - 1;
	bucket = bpf_map_lookup_elem(table, &index);
	if (!bucket)
		return false;
	low = bucket->low;
	high = bucket->high;
	/* The one that is looked for is at low or behind it, and not behind high. */
	for (int step = 0; step < TABLE_SEARCH_STEPS && low < high; step++) {
		__u32 middle = high - (high - low) / 2;

		index = buckets + middle;
		row = bpf_map_lookup_elem(table, &index);
		if (!row)
			return false;
		if (row->address <= wanted)
			low = middle;
		else
			high = middle - 1;
	}
	index = buckets + low;
	row = bpf_map_lookup_elem(table, &index);
	if (!row || row->address > wanted)
		return false;
	*found = *row;
	return true;
}

#endif
