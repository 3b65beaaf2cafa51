package flamegraph

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview/profiletest"
)

// A person's way through a profile: every figure on it is one that the test computes by itself.
func TestFlameGraph(t *testing.T) {
	samples := profiletest.Mixed()
	page := newBrowser(t)
	page.open(samples, "A mixed host", "3 samples are missing, as a test")
	page.picture("light")
	assert.Equal(t, "A mixed host", page.text("h1"))
	assert.Equal(t, "2026-11-23 09:00:00 UTC, 10 s · sampled at 99 Hz", page.text("#about"))
	assert.Contains(t, page.text("#notes"), "1 note")
	counted := expect(samples, ofType(""))
	seconds := float64(counted.total*profiletest.Period) / 1e9
	assert.Equal(t, fmt.Sprintf("All: %.2f s", seconds), page.text("#sum"))
	page.choose("samples (count)")
	assert.Equal(t, fmt.Sprintf("All: %d samples", counted.total), page.text("#sum"))

	page.step("tooltip", func(t *testing.T) {
		for _, path := range [][]string{
			{"nginx"},
			{"nginx", "_start", "__libc_start_main"},
			{"checkout (shop)", "runtime.goexit", "net/http.(*conn).serve", "net/http.(*ServeMux).ServeHTTP"},
			{
				"recommend (python3.12)", "_start", "__libc_start_main", "Py_BytesMain", "pymain_run_python",
				"_PyEval_EvalFrameDefault", "<module>",
			},
		} {
			page.point(counted.middle(path...))
			found, _ := counted.find(path...)
			got := page.text("#tooltip")
			assert.Contains(t, got, path[len(path)-1])
			assert.Contains(t, strings.Join(strings.Fields(got), " "), fmt.Sprintf("Total %d samples %s Self %d samples",
				found.total, share(found.total, counted.total), found.self))
		}
		path := []string{
			"checkout (shop)",
			"runtime.goexit",
			"net/http.(*conn).serve",
			"net/http.(*ServeMux).ServeHTTP",
			"example.com/shop/checkout.(*Handler).ServeHTTP",
			"encoding/json.(*encodeState).marshal",
			"encoding/json.(*encodeState).reflectValue",
		}
		page.point(counted.middle(path...))
		assert.Contains(t, page.text("#tooltip"), "go · /srv/shop · /usr/local/go/src/encoding/json/encode.go · inlined")
		page.picture("tooltip")
		page.point(0.999, 30)
		hidden := value[bool](page, `document.getElementById("tooltip").hidden`)
		assert.True(t, hidden, "there is no frame")
	})

	page.step("zoom", func(t *testing.T) {
		nginx, _ := counted.find("nginx")
		page.clickAt(counted.middle("nginx"))
		assert.Equal(
			t,
			fmt.Sprintf("nginx: %d samples, %s of %d samples", nginx.total, share(nginx.total, counted.total), counted.total),
			page.text("#sum"),
		)
		// The frame is as wide as the window now: at the left edge of its children is what was far from it before.
		page.point(0.001, 2)
		assert.Contains(t, page.text("#tooltip"), "_start")
		assert.Contains(t, page.text("#tooltip"), "of what is zoomed")
		epoll, _ := nginx.find("_start", "__libc_start_main", "main", "ngx_master_process_cycle", "ngx_worker_process_cycle",
			"ngx_process_events_and_timers", "ngx_epoll_process_events")
		share, row := nginx.middle("_start", "__libc_start_main", "main", "ngx_master_process_cycle", "ngx_worker_process_cycle",
			"ngx_process_events_and_timers", "ngx_epoll_process_events", "ngx_http_process_request_line")
		page.clickAt(share, row+1)
		assert.Contains(t, page.text("#sum"), fmt.Sprintf("ngx_http_process_request_line: %d samples",
			epoll.children["ngx_http_process_request_line"].total))
		page.picture("zoomed")
		page.click("#back")
		assert.Contains(t, page.text("#sum"), "nginx: ")
		page.press(kb.Backspace)
		assert.Contains(t, page.text("#sum"), "All: ")
		page.clickAt(counted.middle("zstd"))
		assert.Contains(t, page.text("#sum"), "zstd: ")
		page.press(kb.Escape)
		assert.Contains(t, page.text("#sum"), "All: ")
		page.clickAt(counted.middle("zstd"))
		page.clickAt(0.5, 0) // the root, which stays in sight
		assert.Contains(t, page.text("#sum"), "All: ")
		page.clickAt(counted.middle("zstd"))
		page.click("#reset")
		assert.Contains(t, page.text("#sum"), "All: ")
	})

	page.step("search", func(t *testing.T) {
		page.press("/")
		page.press("_", "_", "x", "6", "4", "_", "s", "y", "s")
		want := matching(samples, func(name string) bool { return strings.Contains(name, "__x64_sys") })
		assert.Equal(t, fmt.Sprintf("%s found, %d samples", share(want, counted.total), want), page.text("#found"))
		page.picture("search")
		page.press(kb.Escape)
		assert.Empty(t, page.text("#found"))
		page.press(strings.Split("/^tcp_(push|sendmsg)$/", "")...)
		assert.Equal(t, "/^tcp_(push|sendmsg)$/", value[string](page, `document.getElementById("search").value`))
		want = matching(samples, func(name string) bool { return name == "tcp_push" || name == "tcp_sendmsg" })
		assert.Equal(t, fmt.Sprintf("%s found, %d samples", share(want, counted.total), want), page.text("#found"))
		page.press(kb.Escape)
		page.press(strings.Split("/(/", "")...)
		assert.Contains(t, page.text("#found"), "Invalid regular expression")
		page.press(kb.Escape)
	})

	page.step("processes", func(t *testing.T) {
		page.click("#pick-process")
		assert.Contains(t, page.text(".popover:not([hidden])"), "nginx, pid 811")
		assert.Contains(t, page.text(".popover:not([hidden])"), "checkout (shop), pid 4242, container 4f3e9c1b7a6d")
		page.picture("picker")
		page.press("8", "1", "0")
		page.click(".popover:not([hidden]) li input")
		worker := expect(samples, func(sample profiletest.Sample) bool { return sample.Type == "" && sample.Process.PID == 810 })
		assert.Equal(t, fmt.Sprintf("All: %d samples", worker.total), page.text("#sum"))
		assert.Contains(t, page.text("#pick-process"), "nginx, pid 810")
		page.press(kb.Escape)
		page.point(worker.middle("nginx"))
		assert.Contains(t, page.text("#tooltip"), fmt.Sprintf("%d samples", worker.total))
		page.click("#pick-process")
		page.press(kb.Backspace, kb.Backspace, kb.Backspace, "n", "g", "i", "n", "x")
		page.click(".popover:not([hidden]) .actions button:nth-of-type(2)") // only what is found
		nginx, _ := counted.find("nginx")
		assert.Equal(t, fmt.Sprintf("All: %d samples", nginx.total), page.text("#sum"))
		page.click(".popover:not([hidden]) .actions button") // all
		assert.Equal(t, fmt.Sprintf("All: %d samples", counted.total), page.text("#sum"))
		page.press(kb.Escape)
	})

	page.step("spans", func(t *testing.T) {
		trace, span := profiletest.SpanOf(1)
		page.click("#pick-span")
		page.press(strings.Split(span.String(), "")...)
		page.click(".popover:not([hidden]) li input")
		inSpan := expect(samples, func(sample profiletest.Sample) bool { return sample.Type == "" && sample.SpanID == span })
		assert.Equal(t, fmt.Sprintf("All: %d samples", inSpan.total), page.text("#sum"))
		page.press(kb.Escape)
		share, row := inSpan.middle("checkout (shop)", "runtime.goexit", "net/http.(*conn).serve")
		page.point(share, row)
		assert.Contains(t, page.text("#tooltip"), fmt.Sprintf("%d samples", inSpan.total))
		page.picture("span")
		page.click("#pick-span")
		page.click(".popover:not([hidden]) .actions button")
		page.empty(".popover:not([hidden]) input[type=search]")
		page.press(strings.Split("trace "+trace.String(), "")...)
		page.click(".popover:not([hidden]) .actions button:nth-of-type(2)")
		inTrace := expect(samples, func(sample profiletest.Sample) bool { return sample.Type == "" && sample.TraceID == trace })
		assert.Equal(t, fmt.Sprintf("All: %d samples", inTrace.total), page.text("#sum"))
		// Together with a thread; then with a process that has none of it.
		page.press(kb.Escape)
		page.click("#pick-thread")
		page.press("s", "h", "o", "p", "-", "1")
		page.click(".popover:not([hidden]) li input")
		thread := expect(samples, func(sample profiletest.Sample) bool {
			return sample.Type == "" && sample.TraceID == trace && sample.Thread == "shop-1"
		})
		assert.Equal(t, fmt.Sprintf("All: %d samples", thread.total), page.text("#sum"))
		page.press(kb.Escape)
		page.choose("off_cpu (nanoseconds)")
		off := expect(samples, func(sample profiletest.Sample) bool { return sample.Type == "off_cpu" && sample.TraceID == trace })
		assert.Equal(t, fmt.Sprintf("All: %.2f s", float64(off.total)/1e9), page.text("#sum"))
		page.click("#pick-span")
		page.click(".popover:not([hidden]) .actions button")
		page.press(kb.Escape)
		page.click("#pick-thread")
		page.press("x")
		page.click(".popover:not([hidden]) .actions button")
		page.press(kb.Escape)
		page.choose("samples (count)")
		assert.Equal(t, fmt.Sprintf("All: %d samples", counted.total), page.text("#sum"))
	})

	page.step("keyboard", func(t *testing.T) {
		page.run(chromedp.Focus(chromedp.CSS("#chart")))
		page.press(kb.Home)
		assert.Contains(t, page.text("#tooltip"), "all")
		page.press(kb.ArrowDown) // the widest
		assert.Contains(t, page.text("#tooltip"), "checkout (shop)")
		page.press(kb.ArrowRight)
		assert.Contains(t, page.text("#tooltip"), "nginx")
		spoken := value[string](page, `document.getElementById("spoken").textContent`)
		assert.Contains(t, spoken, "nginx")
		page.press(kb.ArrowLeft, kb.ArrowUp, kb.ArrowDown, kb.ArrowRight, kb.Enter)
		assert.Contains(t, page.text("#sum"), "nginx: ")
		page.press(kb.Escape)
		assert.Contains(t, page.text("#sum"), "All: ")
	})

	page.step("functions", func(t *testing.T) {
		page.click("#tab-functions")
		rows := value[[][]string](
			page,
			`[...document.querySelectorAll("#functions tbody tr")].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))`,
		)
		require.Greater(t, len(rows), 60)
		for _, row := range rows {
			total := matching(samples, func(name string) bool { return name == row[4] })
			if row[4] == "main" || row[4] == "_start" || row[4] == "__libc_start_main" {
				continue // of several programs, so several rows
			}
			assert.Equal(t, fmt.Sprintf("%d samples", total), row[2], row[4])
			assert.Equal(t, share(total, counted.total), row[3], row[4])
		}
		assert.Equal(t, "example.com/shop/price.Rules[...].Apply", rows[0][4], "the largest self value")
		page.picture("functions")
		page.click("#functions tbody tr td.name button")
		assert.Contains(
			t,
			page.text("#found"),
			share(matching(samples, func(name string) bool { return name == rows[0][4] }), counted.total),
		)
		page.press(kb.Escape)
	})

	page.step("root at the bottom", func(t *testing.T) {
		page.click("#flip")
		page.picture("flipped")
		height := value[float64](page, `document.getElementById("chart").getBoundingClientRect().height`)
		last := int(height/rowHeight) - 1
		place, row := counted.middle("nginx")
		page.point(place, last-row)
		assert.Contains(t, page.text("#tooltip"), "nginx")
		page.click("#flip")
	})

	page.scheme("dark")
	page.picture("dark")
	page.point(counted.middle("checkout (shop)", "runtime.goexit"))
	page.picture("dark-tooltip")
}

// Names are text, whatever they hold.
func TestHostileNames(t *testing.T) {
	hostile := `</script><img src=x onerror="document.title='broken'">`
	reordering := "safe\u202egnp.exe\u0000\x1b[31m"
	samples := []profiletest.Sample{
		{
			Process: profiletest.Process{Executable: hostile, Service: "{{DATA}}"}, Thread: hostile, Count: 5,
			Stack: []profiletest.Frame{
				{Name: hostile, Kind: hostile, File: hostile, Module: "/" + hostile},
				{Name: reordering, Kind: "go"}, {Name: "日本語の関数::名前", Kind: "native"}, {Name: "__proto__", Kind: "__proto__"},
			},
		},
		{
			Process: profiletest.Process{Executable: "other"},
			Count:   1,
			Stack:   []profiletest.Frame{{Name: "<b>bold</b>&amp;", Kind: "constructor"}},
		},
	}
	page := newBrowser(t)
	page.open(samples, hostile, hostile)
	page.picture("hostile")
	counted := expect(samples, ofType(""))
	page.choose("samples (count)")
	assert.Equal(t, hostile, page.text("h1"))
	process := "{{DATA}} (" + hostile + ")"
	page.point(counted.middle(process, hostile))
	assert.Contains(t, page.text("#tooltip"), hostile)
	page.point(counted.middle(process, hostile, reordering))
	assert.Contains(t, page.text("#tooltip"), "safe\uFFFDgnp.exe\uFFFD\uFFFD[31m")
	page.point(counted.middle("other", "<b>bold</b>&amp;"))
	assert.Contains(t, page.text("#tooltip"), "<b>bold</b>&amp;")
	page.click("#pick-process")
	page.click("#pick-thread")
	assert.Contains(t, page.text(".popover:not([hidden])"), hostile)
	page.press(kb.Escape)
	page.click("#tab-functions")
	assert.Contains(t, page.text("#functions"), hostile)
	assert.Zero(t, value[int](page, "document.images.length"))
	assert.Zero(t, value[int](page, `document.querySelectorAll("b").length`))
	assert.Equal(t, hostile+" – flame graph", value[string](page, "document.title"))
}

// A stack deeper than any window scrolls, and is cut where it would be endless.
func TestDeepStack(t *testing.T) {
	frames := make([]profiletest.Frame, 3000)
	for i := range frames {
		frames[i] = profiletest.Frame{Name: fmt.Sprintf("recursion %d", i), Kind: "native"}
	}
	page := newBrowser(t)
	page.open([]profiletest.Sample{{Process: profiletest.Process{Executable: "deep"}, Stack: frames, Count: 7}}, "Deep")
	value[float64](page, `document.getElementById("scroller").scrollTop = 1e9`)
	page.settle()
	rows := value[int](page, `Math.floor(document.getElementById("chart").getBoundingClientRect().height / 20)`)
	page.point(0.5, rows-1)
	assert.Contains(t, page.text("#tooltip"), "[deeper frames left out]")
	page.picture("deep")
}

// With 100,000 different stacks it stays fluid.
func TestLarge(t *testing.T) {
	const stacks = 100_000
	samples := profiletest.Large(stacks)
	page := newBrowser(t)
	page.open(samples, "100,000 stacks")
	page.picture("large")
	counted := expect(samples, ofType(""))
	page.choose("samples (count)")
	assert.Equal(t, fmt.Sprintf("All: %s samples", thousands(counted.total)), page.text("#sum"))
	found, _ := counted.find("program-07")
	page.point(counted.middle("program-07"))
	assert.Contains(t, page.text("#tooltip"), thousands(found.total)+" samples")

	// From one drawn picture to the next while the pointer moves; what a filter, a search and a zoom take.
	type figures struct {
		Frame  float64 `json:"frame"`
		Type   float64 `json:"type"`
		Search float64 `json:"search"`
		Zoom   float64 `json:"zoom"`
	}
	times := value[figures](page, `(async () => {
		const chart = document.getElementById("chart"), box = chart.getBoundingClientRect();
		const drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
		const median = async (count, work) => {
			const times = [];
			for (let i = 0; i < count; i++) {
				const before = performance.now();
				work(i);
				await drawn();
				times.push(performance.now() - before);
			}
			return times.sort((left, right) => left - right)[count >> 1];
		};
		const type = document.getElementById("type"), search = document.getElementById("search");
		return {
			frame: await median(40, (i) => chart.dispatchEvent(
				new PointerEvent("pointermove", { clientX: box.left + 30 * i, clientY: box.top + 15 * i }))) / 2,
			type: await median(5, () => type.dispatchEvent(new Event("change"))),
			search: await median(5, (i) => { search.value = "function1" + i; search.dispatchEvent(new Event("input")); }),
			zoom: await median(5, (i) => chart.dispatchEvent( // to a program and back, in turn
				new MouseEvent("click", { clientX: box.left + 400, clientY: box.top + (i % 2 === 0 ? 30 : 10) }))),
		};
	})()`)
	t.Logf("medians: a picture after %.1f ms, another type after %.0f ms, a search after %.0f ms, a zoom after %.0f ms",
		times.Frame, times.Type, times.Search, times.Zoom)
	assert.Less(t, times.Frame, 50.0, "ms; 16.7 is what a screen shows")
	assert.Less(t, max(times.Type, times.Search, times.Zoom), 1000.0, "ms")
	page.picture("large-search")
	page.scheme("dark")
	page.press(kb.Escape)
	page.picture("large-dark")
}

func thousands(number int64) string {
	text := fmt.Sprint(number)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
