package profiletest

import (
	"fmt"
	"math/rand/v2"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// The programs of Mixed: what a host that serves a shop might run.
func shop() Process {
	return Process{Executable: "shop", Service: "checkout", Container: "4f3e9c1b7a6d5e4f3c2b1a09", PID: 4242}
}
func nginxWorker(number int64) Process {
	return Process{Executable: "nginx", Service: "nginx", PID: 810 + number}
}
func python() Process {
	return Process{Executable: "python3.12", Service: "recommend", Container: "9a8b7c6d5e4f01234567abcd", PID: 5100}
}
func node() Process     { return Process{Executable: "node", Service: "storefront", PID: 6007} }
func java() Process     { return Process{Executable: "java", Service: "orders", PID: 7300} }
func compress() Process { return Process{Executable: "zstd", PID: 9001} }

// SpanOf is the numbered span of Mixed and Large; four of them are in one trace.
func SpanOf(number int) (pcommon.TraceID, pcommon.SpanID) {
	var trace pcommon.TraceID
	var span pcommon.SpanID
	copy(trace[:], fmt.Sprintf("trace-%010d", number/4))
	copy(span[:], fmt.Sprintf("sp-%05d", number))
	return trace, span
}

func native(module string, names ...string) []Frame {
	frames := make([]Frame, 0, len(names))
	for _, name := range names {
		frames = append(frames, Frame{Name: name, Kind: "native", Module: module})
	}
	return frames
}

func goFrame(name, file string, line int64, inlined ...Frame) Frame {
	return Frame{Name: name, Kind: "go", File: file, Line: line, Module: "/srv/shop", Inlined: inlined}
}

func kernel(names ...string) []Frame {
	frames := make([]Frame, 0, len(names))
	for _, name := range names {
		frames = append(frames, Frame{Name: name, Kind: "kernel"})
	}
	return frames
}

func python3(names ...string) []Frame {
	frames := make([]Frame, 0, len(names))
	for i, name := range names {
		frames = append(frames, Frame{Name: name, Kind: "cpython", File: "/srv/recommend/model.py", Line: int64(10 + 7*i)})
	}
	return frames
}

func javaScript(names ...string) []Frame {
	frames := make([]Frame, 0, len(names))
	for i, name := range names {
		frames = append(frames, Frame{Name: name, Kind: "v8js", File: "/srv/storefront/server.js", Line: int64(5 + 11*i)})
	}
	return frames
}

func join(parts ...[]Frame) []Frame {
	var joined []Frame
	for _, part := range parts {
		joined = append(joined, part...)
	}
	return joined
}

// Mixed is what a mixed workload looks like in ten seconds at 99 Hz: Go, C, Python, node, Java and the kernel, of which some
// is done for requests, and a little time off the processors.
func Mixed() []Sample {
	serve := []Frame{
		goFrame("runtime.goexit", "/usr/local/go/src/runtime/asm_amd64.s", 1700),
		goFrame("net/http.(*conn).serve", "/usr/local/go/src/net/http/server.go", 2102),
		goFrame("net/http.(*ServeMux).ServeHTTP", "/usr/local/go/src/net/http/server.go", 2822),
		goFrame("example.com/shop/checkout.(*Handler).ServeHTTP", "/src/checkout/handler.go", 41),
	}
	encode := goFrame("encoding/json.(*encodeState).marshal", "/usr/local/go/src/encoding/json/encode.go", 340,
		Frame{Name: "encoding/json.(*encodeState).reflectValue", File: "/usr/local/go/src/encoding/json/encode.go", Line: 352},
		Frame{Name: "encoding/json.valueEncoder", File: "/usr/local/go/src/encoding/json/encode.go", Line: 377})
	price := goFrame("example.com/shop/price.Rules[...].Apply", "/src/price/rules.go", 88)
	collect := []Frame{
		goFrame("runtime.goexit", "/usr/local/go/src/runtime/asm_amd64.s", 1700),
		goFrame("runtime.gcBgMarkWorker", "/usr/local/go/src/runtime/mgc.go", 1400),
		goFrame("runtime.gcDrain", "/usr/local/go/src/runtime/mgcmark.go", 1180),
		goFrame("runtime.scanobject", "/usr/local/go/src/runtime/mgcmark.go", 1390),
	}
	send := kernel(
		"entry_SYSCALL_64_after_hwframe",
		"do_syscall_64",
		"__x64_sys_write",
		"vfs_write",
		"sock_write_iter",
		"tcp_sendmsg",
		"tcp_sendmsg_locked",
		"tcp_push",
		"__tcp_transmit_skb",
		"__ip_queue_xmit",
		"ip_finish_output2",
		"__dev_queue_xmit",
	)
	receive := kernel(
		"entry_SYSCALL_64_after_hwframe",
		"do_syscall_64",
		"__x64_sys_epoll_wait",
		"ep_poll",
		"schedule_hrtimeout_range",
		"schedule",
	)
	nginx := native(
		"/usr/sbin/nginx",
		"_start",
		"__libc_start_main",
		"main",
		"ngx_master_process_cycle",
		"ngx_worker_process_cycle",
		"ngx_process_events_and_timers",
		"ngx_epoll_process_events",
		"ngx_http_process_request_line",
		"ngx_http_core_run_phases",
	)
	py := join(
		native(
			"/usr/bin/python3.12",
			"_start",
			"__libc_start_main",
			"Py_BytesMain",
			"pymain_run_python",
			"_PyEval_EvalFrameDefault",
		),
		python3("<module>", "serve_forever", "Handler.do_GET", "Recommender.rank"),
	)
	js := join(
		native("/usr/bin/node", "_start", "main", "node::Start(int, char**)", "uv_run", "uv__io_poll", "node::MakeCallback"),
		javaScript("processTicksAndRejections", "Server.emit", "onRequest", "renderPage"),
	)
	jvm := join(
		native("/usr/lib/jvm/lib/server/libjvm.so", "thread_native_entry(Thread*)", "JavaThread::run()", "JavaCalls::call_helper"),
		[]Frame{
			{Name: "java.lang.Thread.run", Kind: "jvm", File: "Thread.java", Line: 1583},
			{Name: "com.example.orders.OrderService.place", Kind: "jvm", File: "OrderService.java", Line: 71},
			{Name: "com.example.orders.Inventory.reserve", Kind: "jvm", File: "Inventory.java", Line: 120},
		},
	)
	zstd := native(
		"/usr/bin/zstd",
		"_start",
		"main",
		"FIO_compressFilename",
		"ZSTD_compressStream2",
		"ZSTD_compressBlock_doubleFast",
	)

	var samples []Sample
	add := func(process Process, thread string, count int64, stack []Frame) {
		samples = append(samples, Sample{Process: process, Thread: thread, Stack: stack, Count: count})
	}
	// The requests of the shop, each of them with a span.
	for number := range 12 {
		trace, span := SpanOf(number)
		for _, part := range []struct {
			count int64
			stack []Frame
		}{
			{int64(6 + number%5), join(serve, []Frame{price})},
			{int64(3 + number%3), join(serve, []Frame{encode})},
			{2, join(serve, []Frame{goFrame("bufio.(*Writer).Flush", "/usr/local/go/src/bufio/bufio.go", 620)}, send)},
		} {
			samples = append(samples, Sample{
				Process: shop(),
				Thread:  fmt.Sprintf("shop-%d", number%3),
				Stack:   part.stack,
				Count:   part.count,
				TraceID: trace,
				SpanID:  span,
			})
		}
	}
	add(shop(), "shop-0", 61, collect)
	add(shop(), "shop-1", 14, join(serve[:2], receive))
	for worker := range int64(2) {
		add(nginxWorker(worker), "nginx", 41+worker, join(nginx, native("/usr/sbin/nginx", "ngx_http_gzip_body_filter"),
			native("/usr/lib/x86_64-linux-gnu/libz.so.1.2.13", "deflate", "deflate_fast", "longest_match")))
		add(nginxWorker(worker), "nginx", 22, join(nginx, native("/usr/sbin/nginx", "ngx_writev"), send))
		add(nginxWorker(worker), "nginx", 9, join(nginx[:7], receive))
		add(nginxWorker(worker), "nginx", 5, join(nginx,
			[]Frame{{Kind: "native", Module: "/usr/lib/x86_64-linux-gnu/libpcre2-8.so.0.11.2", Address: segmentStart + 0x2f40}}))
	}
	add(
		python(),
		"python3.12",
		77,
		join(py, python3("score"), native("/usr/lib/libopenblas.so.0", "cblas_sgemm", "sgemm_kernel_HASWELL")),
	)
	add(python(), "python3.12", 33, join(py, python3("features", "<listcomp>")))
	add(python(), "gc", 11, join(py[:5], native("/usr/bin/python3.12", "_PyObject_GC_Collect", "deduce_unreachable")))
	add(node(), "node", 52, join(js, javaScript("escapeHtml"), native("/usr/bin/node", "v8::internal::RegExpImpl::Exec")))
	add(node(), "node", 18, join(js, javaScript("JSON.stringify")))
	add(
		node(),
		"V8 DefaultWorke",
		12,
		native("/usr/bin/node", "clone3", "start_thread", "v8::internal::ScavengerCollector::CollectGarbage"),
	)
	add(java(), "http-nio-8080-e", 36, jvm)
	add(java(), "C2 CompilerThre", 20, native("/usr/lib/jvm/lib/server/libjvm.so", "thread_native_entry(Thread*)",
		"CompileBroker::compiler_thread_loop()", "C2Compiler::compile_method", "PhaseChaitin::Register_Allocate()"))
	add(compress(), "zstd", 65, join(zstd, native("/usr/bin/zstd", "ZSTD_count")))
	add(
		compress(),
		"zstd",
		8,
		join(zstd[:3], kernel("asm_exc_page_fault", "exc_page_fault", "handle_mm_fault", "clear_huge_page")),
	)

	trace, span := SpanOf(1)
	for _, off := range []Sample{
		{Process: shop(), Thread: "shop-1", Count: 1_530_000_000, Stack: join(serve, receive), TraceID: trace, SpanID: span},
		{Process: python(), Thread: "python3.12", Count: 3_210_000_000, Stack: join(py[:7], receive)},
	} {
		off.Type, off.Unit = "off_cpu", "nanoseconds"
		samples = append(samples, off)
	}
	return samples
}

// Large has that many different stacks, of random functions that call each other as in programs: few at the roots, many at
// the leaves, 5 to 60 deep. The same seed gives the same samples.
func Large(stacks int) []Sample {
	random := rand.New(rand.NewPCG(1, 2))
	kinds := []string{"native", "go", "cpython", "jvm", "v8js", "native", "kernel"}
	samples := make([]Sample, 0, stacks)
	for number := range stacks {
		program := random.IntN(40)
		kind := kinds[program%len(kinds)]
		process := Process{Executable: fmt.Sprintf("program-%02d", program), PID: int64(1000 + 10*program + random.IntN(3))}
		depth := 5 + random.IntN(25) + random.IntN(31)
		frames := make([]Frame, 0, depth)
		function := program
		for level := range depth {
			// Deeper calls have more choices: the tree is narrow at its root.
			function = (function*7 + random.IntN(2+level/6)) % 400
			frames = append(frames, Frame{
				Name: fmt.Sprintf("package%d/part%d.function%d", program, function%37, function), Kind: kind,
				Module: fmt.Sprintf("/usr/bin/program-%02d", program),
			})
		}
		// The number makes the stack another one.
		frames = append(frames, Frame{
			Name: fmt.Sprintf("package%d.leaf%d", program, number%5000), Kind: kind,
			Module: fmt.Sprintf("/usr/bin/program-%02d", program), Address: uint64(segmentStart + number),
		})
		sample := Sample{
			Process: process,
			Thread:  fmt.Sprintf("thread-%d", random.IntN(5)),
			Stack:   frames,
			Count:   int64(1 + random.IntN(9)),
		}
		if number%3 == 0 {
			sample.TraceID, sample.SpanID = SpanOf(number / 30)
		}
		samples = append(samples, sample)
	}
	return samples
}
