/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Samples: how often, or for how long, a thread was seen with a stack.
 *
 * They are counted here, by the stack's hash, and collected by user space now and then. The addresses of a stack are
 * sent when it is new. There are two sets of counts, and the era says which is in use: user space changes it, waits
 * until no program can use the other one any more, and empties that.
 */
#ifndef EBPFRECEIVER_CPU_SAMPLE_H
#define EBPFRECEIVER_CPU_SAMPLE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "cpu/event.h"
#include "cpu/goroutine.h"
#include "cpu/process.h"
#include "cpu/walk.h"
#include "loss.h"
#include "ring.h"
#include "task.h"

enum sample_kind {
	SAMPLE_ON_CPU,
	SAMPLE_WAITING,	  /* it gave the CPU up */
	SAMPLE_PREEMPTED, /* it was made to */
};

struct sample_key {
	__u64 stack;	     /* a hash of the addresses, the process and how the walk ended */
	__u64 start_boot_ns; /* of the process */
	__u32 pid;
	__u32 thread;  /* thread id in the initial namespace; 0 where threads are not told apart */
	__u32 cpu;     /* 0 where they are not told apart */
	__u32 kind;    /* enum sample_kind */
	char comm[16]; /* of the thread, where they are told apart */
};

struct sample_value {
	__u64 count;
	__u64 time_ns; /* off CPU */
};

enum cpu_count {
	COUNT_SAMPLES,	       /* of all kinds */
	COUNT_SAMPLES_COUNTED, /* that are in the counts */
	COUNT_FRAMES,	       /* in user mode */
	COUNT_WALK_NS,	       /* time that walks in user mode took */
	COUNT_WALKS,
	COUNT_IGNORED, /* samples of processes that are not selected */
	COUNT_END,     /* so many walks ended in each way: enum walk_end */
	COUNTS = COUNT_END + WALK_ENDS,
};

const struct sample_key *keep_sample_key __attribute__((unused));
const struct sample_event *keep_sample_event __attribute__((unused));
const struct sample_value *keep_sample_value __attribute__((unused));
const enum sample_kind *keep_sample_kind __attribute__((unused));
const enum cpu_count *keep_cpu_count __attribute__((unused));

/* What to tell samples apart by. */
const volatile bool by_thread = false;
const volatile bool by_cpu = false;

/* Changed by user space alone. */
volatile __u32 era = 0;

/* How often user space is asked to look into a process again that executes what is not known. */
#define ASK_INTERVAL_NS 1000000000ULL

/* And one that has mapped something, which may be data as well as code in the place of other code. */
const volatile __u64 recheck_interval_ns = 10000000000ULL;

/* Owner: user space, which empties each when the other is in use. Resized before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct sample_key);
	__type(value, struct sample_value);
} even_samples SEC(".maps"), odd_samples SEC(".maps");

/* Stacks that were sent, with the era in which they were. The oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u32);
} sent_stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} cpu_counts SEC(".maps");

/* A sample that is told of by itself: it may belong to a request. */
struct sample_event {
	struct cpu_event process;
	struct sample_key key;
	struct sample_value value;
	__u64 time_ns;
	__u64 goroutine;	/* of Go; 0: not known, or none */
	__u64 parent_goroutine; /* the one that started it */
	__u32 thread;		/* thread id in the initial namespace */
	__u32 reserved;
};

struct sampling {
	struct sample_key key;
	struct walk walk;
};

static __always_inline void add_count(__u32 which, __u64 much)
{
	__u64 *count = bpf_map_lookup_elem(&cpu_counts, &which);

	if (count)
		__sync_fetch_and_add(count, much);
}

static __always_inline void ask_for_process(void *ctx)
{
	struct cpu_event event;

	describe_process(&event, CPU_PROCESS);
	ring_output_now(ctx, &event, sizeof(event));
}

/* Asks user space to look into a process again: something in it has changed. */
static __always_inline void ask_again(void *ctx, struct task_struct *task, __u64 interval_ns)
{
	__u32 pid = task->tgid;
	__u64 now_ns = bpf_ktime_get_ns();
	struct process *process = bpf_map_lookup_elem(&processes, &pid);

	if (!process || now_ns - process->asked_ns < interval_ns)
		return;
	process->asked_ns = now_ns;
	ask_for_process(ctx);
}

/*
 * Takes what is known of the process. Says false if its samples are not wanted. Where something is not known, user
 * space is asked, but the sample is taken as it is.
 */
static __always_inline bool prepare_process(void *ctx, struct walk *walk, struct task_struct *task)
{
	bool adopted;
	struct process *process = current_process(task, &adopted);

	walk->misses = false;
	walk->changed = false;
	if ((!process || adopted) && begin_asking(task, bpf_ktime_get_ns(), ASK_INTERVAL_NS))
		ask_for_process(ctx);
	if (!process)
		return true;
	if (process->ignored)
		return false;
	walk->process = *process;
	walk->has_process = true;
	if (adopted)
		return true;
	/* Code that was mapped or unmapped since shows in how much of it there is. */
	walk->misses = process->pages != task->mm->exec_vm;
	walk->changed = process->changes != changes_of(task->mm);
	return true;
}

static __always_inline void hash_kernel_frames(struct walk *walk)
{
	for (__u32 i = 0; i < KERNEL_FRAMES && i < walk->frames; i++)
		walk->hash = mix(walk->hash, walk->event.addresses[i]);
}

/* Reads the frames in the kernel, if the thread is there. */
static __always_inline void walk_kernel(void *ctx, struct walk *walk)
{
	long bytes = bpf_get_stack(ctx, walk->event.addresses, KERNEL_FRAMES * sizeof(walk->event.addresses[0]), 0);

	walk->frames = bytes > 0 ? bytes / sizeof(walk->event.addresses[0]) : 0;
	hash_kernel_frames(walk);
}

/* Sends the addresses of a stack that was not sent in this era. Says false if there is no room for them. */
static __always_inline bool send_stack(void *ctx, struct sampling *sampling, __u32 kernel_frames, __u32 now)
{
	struct walk *walk = &sampling->walk;
	struct stack_event *event = &walk->event;
	__u32 *sent = bpf_map_lookup_elem(&sent_stacks, &sampling->key.stack);
	__u32 frames = walk->frames;

	if (sent && *sent == now)
		return true;
	if (frames > ALL_FRAMES)
		return true;
	asm volatile("" : "+r"(frames)); /* clang knows the bound already, the verifier does not */
	if (frames > ALL_FRAMES)
		return true;
	describe_process(&event->process, CPU_STACK);
	event->stack = sampling->key.stack;
	event->kernel_frames = kernel_frames;
	event->user_frames = frames - kernel_frames;
	event->end = walk->end;
	if (ring_output(ctx, event,
			__builtin_offsetof(struct stack_event, addresses) + frames * sizeof(event->addresses[0])))
		return false;
	bpf_map_update_elem(&sent_stacks, &sampling->key.stack, &now, BPF_ANY);
	return true;
}

#define COUNT_SAMPLE_IN(samples, key, much)                                                                            \
	({                                                                                                             \
		struct sample_value *value = bpf_map_lookup_elem(&samples, key);                                       \
		long error = 0;                                                                                        \
		if (!value && (error = bpf_map_update_elem(&samples, key, much, BPF_NOEXIST))) {                       \
			value = bpf_map_lookup_elem(&samples, key); /* another CPU was faster */                       \
			error = value ? 0 : error;                                                                     \
		}                                                                                                      \
		if (value) {                                                                                           \
			__sync_fetch_and_add(&value->count, (much)->count);                                            \
			__sync_fetch_and_add(&value->time_ns, (much)->time_ns);                                        \
		}                                                                                                      \
		error;                                                                                                 \
	})

static __always_inline void count_sample(const struct sample_key *key, const struct sample_value *much, __u32 now)
{
	long error = now & 1 ? COUNT_SAMPLE_IN(odd_samples, key, much) : COUNT_SAMPLE_IN(even_samples, key, much);

	if (error)
		count_loss(LOSS_STORAGE_FULL);
	else
		add_count(COUNT_SAMPLES_COUNTED, 1);
}

/* Tells of a sample with its time and who was running. */
static __always_inline void tell_sample(void *ctx, const struct sampling *sampling, const struct sample_value *much)
{
	struct sample_event event = {.key = sampling->key, .value = *much, .time_ns = bpf_ktime_get_ns()};
	const struct walk *walk = &sampling->walk;

	describe_process(&event.process, CPU_SAMPLE);
	event.thread = bpf_get_current_pid_tgid();
	if (walk->process.goroutine)
		find_goroutine(&walk->process, &walk->registers, &event.goroutine, &event.parent_goroutine);
	if (!ring_output(ctx, &event, sizeof(event)))
		add_count(COUNT_SAMPLES_COUNTED, 1);
}

/* Counts a sample, or tells of it where its process serves requests. */
static __always_inline void take_sample(void *ctx, const struct sampling *sampling, const struct sample_value *much,
					__u32 now)
{
	if (sampling->walk.has_process && sampling->walk.process.serves)
		tell_sample(ctx, sampling, much);
	else
		count_sample(&sampling->key, much, now);
}

#endif
