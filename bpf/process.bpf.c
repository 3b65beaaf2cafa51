// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * The process probe: when processes begin, execute a program, and end, so that user space knows whom a socket belonged
 * to after its process has gone.
 *
 *   fork --> a child shares its parent's program until it executes its own
 *   exec --> wakes the reader at once, unless there are too many: the process may live for a millisecond only
 *   exit --> the whole process, not a thread of it
 *
 * Every program exists twice, as a BTF tracepoint and as a raw tracepoint for kernels that refuse the first.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "loss.h"
#include "ring.h"
#include "task.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FILENAME_BYTES	  256
#define ARGUMENTS_BYTES	  256
#define ENVIRONMENT_BYTES 4096

/*
 * How often an exec may wake the reader: a wake-up costs more than all the rest of the event, and beyond the rate at
 * which the reader reads processes (the same bucket stands in user space) it gains nothing.
 */
const volatile __u64 wakeup_interval_ns = 5000000;
const volatile __u64 wakeup_burst_ns = 2000000000; /* how much may be saved up */

__u64 wakeup_due_ns; /* when the bucket is full again; a race of two CPUs costs a wake-up more or less */

enum process_event_kind {
	PROCESS_FORK = 1,
	PROCESS_EXEC,
	PROCESS_EXIT,
};

/* Every event begins with this, fork and exit are no more. */
struct process_event {
	__u64 start_boot_ns;
	__u64 parent_start_boot_ns; /* zero in an exit */
	__u32 pid;		    /* thread group ids in the initial namespace */
	__u32 parent_pid;
	__u32 kind;
	__u32 padding;
};

/* Sent up to the end of its environment. */
struct exec_event {
	struct process_event process;
	__u64 cgroup_id;	 /* in the version 2 hierarchy */
	__u64 environment_bytes; /* how long the environment is, which may be more than the event holds */
	__u32 filename_length;
	__u32 arguments_length;
	__u32 environment_length;
	__u32 padding;
	char comm[16];
	char filename[FILENAME_BYTES];	     /* of what really runs: the interpreter of a script */
	char arguments[ARGUMENTS_BYTES];     /* the first bytes, zeros between the arguments */
	char environment[ENVIRONMENT_BYTES]; /* likewise */
};

const struct process_event *keep_process_event __attribute__((unused));
const struct exec_event *keep_exec_event __attribute__((unused));
const enum process_event_kind *keep_process_event_kind __attribute__((unused));

/* An exec event is larger than the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_event);
} exec_scratch SEC(".maps");

static __always_inline void describe(struct process_event *event, __u32 kind, struct task_struct *task,
				     struct task_struct *parent)
{
	event->kind = kind;
	event->padding = 0;
	event->pid = BPF_CORE_READ(task, tgid);
	event->start_boot_ns = task_start_boot_ns(BPF_CORE_READ(task, group_leader));
	event->parent_pid = 0;
	event->parent_start_boot_ns = 0;
	if (parent) {
		event->parent_pid = BPF_CORE_READ(parent, tgid);
		event->parent_start_boot_ns = task_start_boot_ns(BPF_CORE_READ(parent, group_leader));
	}
}

static __always_inline bool may_wake(void)
{
	__u64 now_ns = bpf_ktime_get_ns();
	__u64 due_ns = wakeup_due_ns;

	if (due_ns < now_ns)
		due_ns = now_ns;
	if (due_ns - now_ns > wakeup_burst_ns)
		return false;
	wakeup_due_ns = due_ns + wakeup_interval_ns;
	return true;
}

static __always_inline int on_fork(void *ctx, struct task_struct *parent, struct task_struct *child)
{
	struct process_event event;

	if (BPF_CORE_READ(child, pid) != BPF_CORE_READ(child, tgid) || BPF_CORE_READ(child, flags) & PF_KTHREAD)
		return 0;
	describe(&event, PROCESS_FORK, child, parent);
	ring_output(ctx, &event, sizeof(event));
	return 0;
}

/*
 * Copies the start of a part of the new program's stack, and returns how much. It was written a moment ago; should it
 * be swapped out by now, the event goes without.
 */
static __always_inline __u32 copy_user(char *to, __u32 capacity, unsigned long from, unsigned long length)
{
	if (length > capacity)
		length = capacity;
	/* clang knows this already; the verifier has to see it. */
	asm volatile("" : "+r"(length));
	if (length > capacity || bpf_probe_read_user(to, length, (const void *)from))
		return 0;
	return length;
}

static __always_inline int on_exec(void *ctx, struct task_struct *task, struct linux_binprm *program)
{
	unsigned long arguments, environment;
	struct exec_event *event;
	struct mm_struct *mm;
	__u32 zero = 0;
	__u64 size;
	long copied;

	event = bpf_map_lookup_elem(&exec_scratch, &zero);
	if (!event)
		return 0;
	describe(&event->process, PROCESS_EXEC, task, BPF_CORE_READ(task, real_parent));
	event->cgroup_id = bpf_get_current_cgroup_id();
	event->padding = 0;
	BPF_CORE_READ_STR_INTO(&event->comm, task, comm);

	copied = bpf_probe_read_kernel_str(event->filename, sizeof(event->filename), BPF_CORE_READ(program, interp));
	event->filename_length = copied > 0 ? copied - 1 : 0;

	mm = BPF_CORE_READ(task, mm);
	arguments = BPF_CORE_READ(mm, arg_start);
	event->arguments_length = copy_user(event->arguments, sizeof(event->arguments), arguments,
					    BPF_CORE_READ(mm, arg_end) - arguments);
	environment = BPF_CORE_READ(mm, env_start);
	event->environment_bytes = BPF_CORE_READ(mm, env_end) - environment;
	event->environment_length =
		copy_user(event->environment, sizeof(event->environment), environment, event->environment_bytes);

	size = offsetof(struct exec_event, environment) + event->environment_length;
	asm volatile("" : "+r"(size));
	if (size > sizeof(*event))
		return 0;
	if (may_wake())
		ring_output_now(ctx, event, size);
	else
		ring_output(ctx, event, size);
	return 0;
}

static __always_inline int on_exit(void *ctx, struct task_struct *task)
{
	struct process_event event;

	/* The kernel counts the threads down before it gets here; the leader may well not be the last. */
	if (BPF_CORE_READ(task, signal, live.counter) != 0 || BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 0;
	describe(&event, PROCESS_EXIT, task, NULL);
	ring_output(ctx, &event, sizeof(event));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork_btf, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(ctx, parent, child);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_btf, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	return on_exec(ctx, task, program);
}

/* Newer kernels have a second argument, whether the process ends; older ones do not. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(exit_btf, struct task_struct *task)
{
	return on_exit(ctx, task);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(fork_raw, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(ctx, parent, child);
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(exec_raw, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	return on_exec(ctx, task, program);
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(exit_raw, struct task_struct *task)
{
	return on_exit(ctx, task);
}
