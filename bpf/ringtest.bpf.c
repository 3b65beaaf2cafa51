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

/* As many events as the verifier walks through in a fraction of a second. */
#define EVENTS_PER_RUN 1024

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

/* Argument 0 says how many events to send. */
SEC("raw_tp")
int produce(__u64 *ctx)
{
	__u64 count = ctx[0];
	struct event event = {};

	for (__u32 i = 0; i < EVENTS_PER_RUN && i < count; i++) {
		event.sequence = __sync_fetch_and_add(&produced, 1);
		event.inverse = ~event.sequence;
		ring_output(ctx, &event, sizeof(event));
	}
	return 0;
}
