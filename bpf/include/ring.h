/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * The one way that events leave the kernel: a ring buffer (or, before 5.8, a perf buffer) with batched wake-ups.
 *
 * The reader drains on a timer. A producer wakes it only when more than ring_wakeup_bytes are waiting, because a
 * wake-up for each event costs more than the event does.
 */
#ifndef EBPFRECEIVER_RING_H
#define EBPFRECEIVER_RING_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "loss.h"

/* Set before loading: internal/ring.Configure. */
const volatile bool ring_is_perf_buffer = false;
const volatile __u64 ring_wakeup_bytes = 1 << 20;

/* Resized, or turned into a perf event array, before loading: internal/ring.Configure. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

static __always_inline long ring_send(void *ctx, void *event, __u64 size, __u64 wakeup)
{
	long err;

	/* A branch on a load-time constant: the verifier never sees the helper that the kernel may not have. */
	if (ring_is_perf_buffer)
		err = bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, event, size);
	else
		err = bpf_ringbuf_output(&events, event, size, wakeup);
	if (err)
		count_loss(LOSS_RING_FULL);
	return err;
}

/*
 * Whether an event of size bytes wakes the reader. It does where what waits passes the threshold, and again each eighth
 * of it, in case the event that should have woken lost a race with others. Waking for every event above the threshold
 * would cost microseconds each until the reader has run.
 */
static __always_inline bool ring_wakes(__u64 waiting, __u64 size)
{
	if (waiting < ring_wakeup_bytes)
		return false;
	return (waiting - ring_wakeup_bytes) % (ring_wakeup_bytes / 8 + 1) < 4 * (size + 8);
}

/* How to submit an event of size bytes that was reserved in the ring. */
static __always_inline __u64 ring_wakeup(__u64 size)
{
	__u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	return ring_wakes(waiting, size) ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Sends size bytes; counts the event as lost and returns a negative errno when there is no room. */
static __always_inline long ring_output(void *ctx, void *event, __u64 size)
{
	return ring_send(ctx, event, size, ring_is_perf_buffer ? 0 : ring_wakeup(size));
}

/* As ring_output, and wakes the reader at once: for rare events that the reader has to act on. */
static __always_inline long ring_output_now(void *ctx, void *event, __u64 size)
{
	return ring_send(ctx, event, size, BPF_RB_FORCE_WAKEUP);
}

/*
 * Sends size bytes and leaves the reader asleep: for an iterator, whose reader waits for it to end. A walk makes events
 * faster than they are read, so it has to stop for the reader where ring_is_half_full.
 */
static __always_inline long ring_output_quietly(void *ctx, void *event, __u64 size)
{
	return ring_send(ctx, event, size, BPF_RB_NO_WAKEUP);
}

/* A perf buffer does not tell: there, only a full one shows. */
static __always_inline bool ring_is_half_full(void)
{
	return !ring_is_perf_buffer &&
	       bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 2;
}

#endif
