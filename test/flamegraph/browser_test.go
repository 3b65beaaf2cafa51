package flamegraph

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview"
	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview/profiletest"
)

// The window, in CSS pixels.
const (
	windowWidth  = 1400
	windowHeight = 900
)

// browser is a page that is open in Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context

	mutex    sync.Mutex
	requests []string // what the page asked for
	problems []string // exceptions, and what the console or the page's policy complained of
}

// newBrowser starts Chromium. Where it is not installed the test is skipped: it is the one thing that is not needed to
// build.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("chromium is not installed: the flame graph is not tested (apt install chromium)")
	}
	require.NoError(t, err)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.WindowSize(windowWidth, windowHeight),
		chromedp.NoSandbox, // which root has not; the page is ours
		chromedp.Flag("disable-dev-shm-usage", true),
	)
	allocator, cancelAllocator := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancelAllocator)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	opened := &browser{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		opened.mutex.Lock()
		defer opened.mutex.Unlock()
		switch event := event.(type) {
		case *network.EventRequestWillBeSent:
			opened.requests = append(opened.requests, event.Request.URL)
		case *runtime.EventExceptionThrown:
			opened.problems = append(opened.problems, fmt.Sprintf("%+v", event.ExceptionDetails))
		case *log.EventEntryAdded:
			opened.problems = append(opened.problems, event.Entry.Text)
		}
	}))
	call(opened, network.Enable, network.EnableParams{})
	call(opened, log.Enable, cdp.Empty{})
	call(opened, runtime.Enable, cdp.Empty{})
	call(opened, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: windowWidth, Height: windowHeight, DeviceScaleFactor: 1,
	})
	return opened
}

// open writes a page of these samples to disk and opens it. At the end of the test, nothing may have been fetched but the
// page, and nothing gone wrong.
func (b *browser) open(samples []profiletest.Sample, title string, notes ...string) {
	b.t.Helper()
	profile := profileview.NewProfile()
	profile.Add(profiletest.Build(samples), profileview.Filter{})
	path := filepath.Join(b.t.TempDir(), "profile.html")
	file, err := os.Create(path)
	require.NoError(b.t, err)
	require.NoError(b.t, profile.WritePage(file, title, notes))
	require.NoError(b.t, file.Close())
	info, err := os.Stat(path)
	require.NoError(b.t, err)
	started := time.Now()
	b.run(chromedp.Navigate("file://"+path), chromedp.WaitReady(chromedp.CSS("body[data-ready=yes]")))
	b.settle()
	b.t.Logf("%d kB, loaded and drawn after %v", info.Size()/1000, time.Since(started).Round(time.Millisecond))
	b.t.Cleanup(func() {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		assert.Equal(b.t, []string{"file://" + path}, b.requests, "a page fetches nothing")
		assert.Empty(b.t, b.problems)
	})
}

// patience is how long one step may take: Chromium has been seen to need seconds on a busy machine.
const patience = 20 * time.Second

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, actions...))
}

func call[P, R any](b *browser, command cdp.Command[P, R], parameters P) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	_, err := chromedp.Call(ctx, command, parameters)
	require.NoError(b.t, err)
}

// value is what an expression of JavaScript, or the promise that it makes, comes to.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err)
	return result
}

// settle waits until what was asked for is drawn.
func (b *browser) settle() {
	b.t.Helper()
	value[bool](b, "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	return value[string](b, "document.querySelector("+quoted(selector)+").innerText")
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.run(chromedp.Click(chromedp.CSS(selector)))
	b.settle()
}

func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		if key == "/" { // chromedp would send the character apart from the key, so that the page could not take the key for itself
			call(
				b,
				input.DispatchKeyEvent,
				input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key},
			)
			call(b, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: key})
			continue
		}
		b.run(chromedp.KeyEvent(key))
	}
	b.settle()
}

func (b *browser) choose(label string) {
	b.t.Helper()
	value[bool](b, `(() => { const type = document.getElementById("type");
		type.value = [...type.options].find((option) => option.textContent === `+quoted(label)+`).value;
		return type.dispatchEvent(new Event("change")); })()`)
	b.settle()
}

// empty takes the text out of a field.
func (b *browser) empty(selector string) {
	b.t.Helper()
	value[bool](b, `(() => { const field = document.querySelector(`+quoted(selector)+`);
		field.value = "";
		field.focus();
		return field.dispatchEvent(new Event("input")); })()`)
}

// step is a part of a test.
func (b *browser) step(name string, run func(*testing.T)) {
	b.t.Helper()
	whole := b.t
	defer func() { b.t = whole }()
	whole.Run(name, func(t *testing.T) {
		b.t = t
		run(t)
	})
}

// canvas is where the flame graph is in the window.
func (b *browser) canvas() (left, top, width float64) {
	b.t.Helper()
	box := value[[]float64](
		b,
		`(() => { const box = document.getElementById("chart").getBoundingClientRect();
			return [box.left, box.top, box.width]; })()`,
	)
	return box[0], box[1], box[2]
}

// point moves the pointer to a place in the flame graph: a share of its width, and a row.
func (b *browser) point(share float64, row int) {
	b.t.Helper()
	left, top, width := b.canvas()
	b.run(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, left+share*width, top+float64(row)*rowHeight+rowHeight/2))
	b.settle()
}

func (b *browser) clickAt(share float64, row int) {
	b.t.Helper()
	left, top, width := b.canvas()
	b.run(chromedp.MouseClickXY(left+share*width, top+float64(row)*rowHeight+rowHeight/2))
	b.settle()
}

// picture takes a screenshot of the window, where FLAMEGRAPH_PICTURES names a directory for them.
func (b *browser) picture(name string) {
	b.t.Helper()
	directory := os.Getenv("FLAMEGRAPH_PICTURES")
	if directory == "" {
		return
	}
	content, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join(directory, name+".png"), content, 0o644))
}

func (b *browser) scheme(scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	b.settle()
}
