// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * The CPU probe: which stacks threads are seen with, many times a second on each CPU, and which ones they wait with.
 *
 *   perf event      on each CPU --> what runs there now
 *   sched_switch    a thread gives its CPU up, or has to --> since when it is off
 *   sched_exit_tp   it has one again --> how long it was off, and where
 *   exec, exit      what is known of the process is not true any more
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "cpu/off.h"
#include "cpu/process.h"
#include "cpu/registers.h"
#include "cpu/sample.h"
#include "cpu/walk.h"
#include "loss.h"
#include "ring.h"
#include "task.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The collector itself: its own samples are left out, unless it is asked for. */
const volatile __u32 self_pid = 0;

/* A sample is larger than the stack. One for each program that may interrupt the other. */
enum sampling_place {
	SAMPLING_ON_CPU,
	SAMPLING_OFF_CPU,
	SAMPLING_PLACES,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SAMPLING_PLACES);
	__type(key, __u32);
	__type(value, struct sampling);
} samplings SEC(".maps");

static __always_inline void name_sample(struct sampling *sampling, struct task_struct *task, enum sample_kind kind)
{
	struct sample_key *key = &sampling->key;
	__u64 generation;

	key->start_boot_ns = task->group_leader->start_boottime;
	key->pid = task->tgid;
	key->kind = kind;
	key->thread = by_thread ? task->pid : 0;
	key->cpu = by_cpu ? bpf_get_smp_processor_id() : 0;
	__builtin_memset(key->comm, 0, sizeof(key->comm));
	if (by_thread)
		bpf_get_current_comm(key->comm, sizeof(key->comm));
	generation = sampling->walk.has_process ? sampling->walk.process.generation : 0;
	key->stack = mix(mix(sampling->walk.hash, sampling->walk.end | generation << 8), key->start_boot_ns ^ key->pid);
}

/*
 * Looks at the current thread: at its stack in the kernel if it is there, and at that in user mode, and sends what is
 * new. Says NULL if there is no sample, which is wanted or counted.
 */
static __always_inline const struct sampling *look(void *ctx, __u32 place, bool in_kernel, enum sample_kind kind,
						   __u32 now)
{
	struct sampling *sampling = bpf_map_lookup_elem(&samplings, &place);
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 kernel_frames = 0;
	struct walk *walk;
	__u64 begin_ns;

	if (!sampling)
		return NULL;
	walk = &sampling->walk;
	walk->hash = 0;
	walk->frames = 0;
	walk->end = WALK_COMPLETE;
	walk->has_process = false;
	add_count(COUNT_SAMPLES, 1);
	if (read_user_registers(&walk->registers)) {
		if (!prepare_process(ctx, walk, task)) {
			add_count(COUNT_IGNORED, 1);
			return NULL;
		}
		if (in_kernel)
			walk_kernel(ctx, walk);
		kernel_frames = walk->frames;
		begin_ns = bpf_ktime_get_ns();
		walk_user(walk);
		add_count(COUNT_WALK_NS, bpf_ktime_get_ns() - begin_ns);
		add_count(COUNT_WALKS, 1);
		add_count(COUNT_FRAMES, walk->frames - kernel_frames);
		add_count(COUNT_END + (walk->end < WALK_ENDS ? walk->end : 0), 1);
		if (walk->misses)
			ask_again(ctx, task, ASK_INTERVAL_NS);
		else if (walk->changed || walk->end == WALK_FRAME_POINTER) /* code may have been written by now */
			ask_again(ctx, task, recheck_interval_ns);
	} else {
		walk_kernel(ctx, walk);
		kernel_frames = walk->frames;
	}
	name_sample(sampling, task, kind);
	return send_stack(ctx, sampling, kernel_frames, now) ? sampling : NULL;
}

SEC("perf_event")
int cpu_sample(struct perf_sample *ctx)
{
	const struct sample_value once = {.count = 1};
	__u32 pid = bpf_get_current_pid_tgid() >> 32, now = era;
	const struct sampling *sampling;

	if (!pid || pid == self_pid) /* nothing runs */
		return 0;
	sampling = look(ctx, SAMPLING_ON_CPU, !in_user_mode(&ctx->registers), SAMPLE_ON_CPU, now);
	if (sampling)
		take_sample(ctx, sampling, &once, now);
	return 0;
}

static __always_inline void begin_wait(void *ctx, bool preempted, struct task_struct *task, __u64 now_ns)
{
	const struct sampling *sampling;
	struct wait *wait;
	__u32 now = era;

	if (task->flags & PF_KTHREAD || task->tgid == self_pid)
		return;
	wait = bpf_task_storage_get(&waits, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!wait) {
		count_loss(LOSS_STORAGE_FULL);
		return;
	}
	wait->since_ns = now_ns;
	wait->weight = 0;
	/* On its way back to user mode a thread is also made to, with a state of TASK_RUNNING. */
	wait->kind = preempted || !task->__state ? SAMPLE_PREEMPTED : SAMPLE_WAITING;
	if (!walks_when_off || is_ignored(task))
		return;
	wait->weight = take_weight(now_ns);
	if (!wait->weight)
		return;
	sampling = look(ctx, SAMPLING_OFF_CPU, true, wait->kind, now);
	if (sampling)
		wait->key = sampling->key;
	else
		wait->weight = 0;
}

static __always_inline bool end_wait(struct wait *wait, __u64 now_ns, __u64 *wait_ns)
{
	__u64 since_ns = wait ? wait->since_ns : 0;

	if (!since_ns)
		return false;
	wait->since_ns = 0;
	*wait_ns = now_ns - since_ns;
	return *wait_ns >= minimum_wait_ns;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(cpu_off, bool preempted, struct task_struct *task, struct task_struct *next)
{
	__u64 now_ns = bpf_ktime_get_ns(), wait_ns;
	struct sample_value much;
	struct wait *wait;

	if (task->pid)
		begin_wait(ctx, preempted, task, now_ns);
	if (!walks_when_off || !next->pid)
		return 0;
	wait = bpf_task_storage_get(&waits, next, NULL, 0);
	if (!end_wait(wait, now_ns, &wait_ns) || !wait->weight)
		return 0;
	much.count = wait->weight;
	much.time_ns = wait_ns * wait->weight;
	count_sample(&wait->key, &much, era);
	return 0;
}

/* Runs in the thread that has the CPU now, at the end of what gave it to it. */
SEC("tp_btf/sched_exit_tp")
int BPF_PROG(cpu_on)
{
	struct wait *wait = bpf_task_storage_get(&waits, bpf_get_current_task_btf(), NULL, 0);
	const struct sampling *sampling;
	struct sample_value much;
	__u64 now_ns, wait_ns;
	__u32 now = era;

	if (!wait || !wait->since_ns)
		return 0;
	now_ns = bpf_ktime_get_ns();
	if (!end_wait(wait, now_ns, &wait_ns) || is_ignored(bpf_get_current_task_btf()))
		return 0;
	much.count = take_weight(now_ns);
	if (!much.count)
		return 0;
	much.time_ns = wait_ns * much.count;
	sampling = look(ctx, SAMPLING_OFF_CPU, true, wait->kind, now);
	if (sampling)
		take_sample(ctx, sampling, &much, now);
	return 0;
}

static __always_inline void forget_process(void *ctx, struct task_struct *task)
{
	struct cpu_event event;
	__u32 pid = task->tgid;

	if (bpf_map_delete_elem(&processes, &pid))
		return; /* it was never sampled */
	describe_process(&event, CPU_PROCESS_GONE);
	ring_output(ctx, &event, sizeof(event));
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(cpu_exec, struct task_struct *task)
{
	forget_process(ctx, task);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(cpu_exit, struct task_struct *task)
{
	if (task->signal->live.counter == 0) /* the last of its threads */
		forget_process(ctx, task);
	return 0;
}
