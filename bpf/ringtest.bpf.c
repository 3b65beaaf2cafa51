// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * Sends numbered events through ring.h, for the tests and benchmarks of internal/ring. Never attached: it is started
 * with BPF_PROG_TEST_RUN.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "loss.h"
#include "ring.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* 64 bytes, what a small event of a probe has. */
struct event {
	__u64 sequence;
	__u64 inverse; /* ~sequence: shows a torn event */
	__u64 filling[6];
};

/* Keeps the type of the event for the Go bindings. */
const struct event *keep_event __attribute__((unused));

/* Events that were tried, whether or not there was room. */
__u64 produced = 0;

struct run {
	__u64 *ctx;
	struct event event;
};

static long produce_one(__u64 index, struct run *run)
{
	run->event.sequence = __sync_fetch_and_add(&produced, 1);
	run->event.inverse = ~run->event.sequence;
	ring_output(run->ctx, &run->event, sizeof(run->event));
	return 0;
}

/* Argument 0 says how many events to send. */
SEC("raw_tp")
int produce(__u64 *ctx)
{
	struct run run = {.ctx = ctx};

	bpf_loop(ctx[0], produce_one, &run, 0);
	return 0;
}
