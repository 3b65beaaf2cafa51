package signal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHandoffGivesAllThatWasOffered(t *testing.T) {
	var taken []int
	h := NewHandoff(4, func(_ context.Context, data int) error {
		taken = append(taken, data)
		return nil
	}, func(err error) { t.Error(err) })
	for i := range 10 {
		h.Offer(i)
	}
	require.NoError(t, h.Close(context.Background()))
	assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, taken)
}

func TestHandoffTellsWhatWasRefused(t *testing.T) {
	refusal := errors.New("no")
	var refused []error
	h := NewHandoff(1, func(context.Context, int) error { return refusal }, func(err error) { refused = append(refused, err) })
	h.Offer(1)
	require.NoError(t, h.Close(context.Background()))
	assert.Equal(t, []error{refusal}, refused)
}

func TestHandoffCancelsAConsumerThatBlocks(t *testing.T) {
	failed := make(chan error, 2)
	h := NewHandoff(1, func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return ctx.Err()
	}, func(err error) { failed <- err })
	h.Offer(1)
	h.Offer(2) // waits for the first to be taken
	assert.False(t, h.Idle())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	h.Insist(ctx, 3)
	assert.ErrorIs(t, <-failed, context.DeadlineExceeded, "refused, not forgotten")
	require.NoError(t, h.Close(ctx))
	assert.ErrorIs(t, <-failed, context.Canceled)
}
