package signal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// cancelPatience is how long a consumer may take to notice that its call was cancelled.
const cancelPatience = time.Second

// Handoff gives finished data to a consumer from a goroutine of its own, so that a consumer that blocks does not keep a
// probe from reading its ring. One goroutine offers; Close ends it.
type Handoff[Data any] struct {
	waiting chan Data
	failed  func(error)
	done    sync.WaitGroup
	cancel  context.CancelFunc
}

// NewHandoff starts to hand over. At most capacity data wait for the consumer; failed gets what it refuses.
func NewHandoff[Data any](capacity int, consume func(context.Context, Data) error, failed func(error)) *Handoff[Data] {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Handoff[Data]{waiting: make(chan Data, capacity), failed: failed, cancel: cancel}
	h.done.Go(func() {
		for data := range h.waiting {
			if err := consume(ctx, data); err != nil {
				failed(err)
			}
		}
	})
	return h
}

// Idle says that Offer does not block.
func (h *Handoff[Data]) Idle() bool { return len(h.waiting) < cap(h.waiting) }

// Offer hands data over, and blocks where the handoff is not idle.
func (h *Handoff[Data]) Offer(data Data) { h.waiting <- data }

// Insist waits for the consumer, until ctx ends; then the data is refused, not forgotten.
func (h *Handoff[Data]) Insist(ctx context.Context, data Data) {
	select {
	case h.waiting <- data:
	case <-ctx.Done():
		h.failed(ctx.Err())
	}
}

// Close waits until the consumer has taken what was offered; when ctx ends first, it cancels the consumer's call. A
// consumer that does not heed that is left behind, with an error. Nothing may be offered after it.
func (h *Handoff[Data]) Close(ctx context.Context) error {
	close(h.waiting)
	defer h.cancel()
	finished := make(chan struct{})
	go func() {
		h.done.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
	}
	h.cancel()
	select {
	case <-finished:
		return nil
	case <-time.After(cancelPatience):
		return fmt.Errorf("a consumer has not returned %s after its call was cancelled", cancelPatience)
	}
}

// closer is a Handoff of any data.
type closer interface{ Close(context.Context) error }

// CloseAll closes handoffs at the same time: each may wait until ctx ends.
func CloseAll(ctx context.Context, handoffs ...closer) error {
	errs := make([]error, len(handoffs))
	var all sync.WaitGroup
	for i, handoff := range handoffs {
		all.Go(func() { errs[i] = handoff.Close(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}
