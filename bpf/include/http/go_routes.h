/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Which pattern the mux of a program of Go has found for a request. A uprobe in net/http.(*ServeMux).ServeHTTP, behind
 * the call of findHandler, tells of it, with the goroutine that serves the request: that is before the handler begins,
 * and so before the response does.
 *
 * The result of findHandler (Handler, string, *pattern, []string) is in registers there, the string where a function's
 * third and fourth argument would be. So no layout of a structure is needed.
 */
#ifndef EBPFRECEIVER_HTTP_GO_ROUTES_H
#define EBPFRECEIVER_HTTP_GO_ROUTES_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "http/goroutine.h"
#include "http/message.h"
#include "http/stream.h"

#define GO_PATTERN_BYTES 128 /* longer patterns are told of without their text; a power of two */

struct go_pattern {
	struct message message;
	__u8 text[GO_PATTERN_BYTES];
};

_Static_assert(__builtin_offsetof(struct go_pattern, text) == sizeof(struct message), "no padding between them");

static __always_inline int tell_go_route(struct pt_regs___goroutine *ctx)
{
	__u64 length = fourth_argument(ctx);
	struct go_process *process;
	struct go_pattern told;
	__u64 size = 0;

	if (!length) /* nothing was found */
		return 0;
	process = current_go_process();
	if (!process)
		return 0;
	begin_message(&told.message, MESSAGE_RECEIVED);
	read_goroutine(process, goroutine_address(ctx), goroutine_stack(ctx), &told.message.goroutine,
		       &told.message.parent_goroutine);
	if (!told.message.goroutine)
		return 0;
	__builtin_memset(told.text, 0, sizeof(told.text));
	told.message.kind = MESSAGE_ROUTE;
	told.message.cookie = bpf_get_current_pid_tgid() >> 32;
	told.message.length = length > 0x7fffffff ? 0x7fffffff : length;
	if (length <= sizeof(told.text)) {
		size = length - 1;
		asm volatile("%0 &= %1" : "+r"(size) : "i"(GO_PATTERN_BYTES - 1));
		size += 1;
		if (bpf_probe_read_user(told.text, size, (const void *)third_argument(ctx)))
			size = 0;
	}
	told.message.captured = size;
	send_message(ctx, &told, sizeof(told.message) + size);
	return 0;
}

#endif
