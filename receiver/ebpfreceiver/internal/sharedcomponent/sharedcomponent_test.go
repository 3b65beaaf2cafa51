package sharedcomponent

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
)

// fake counts its lifecycle calls and keeps its host, so that it can report at any time.
type fake struct {
	starts, shutdowns     int
	startErr, shutdownErr error
	host                  component.Host
}

func (f *fake) Start(_ context.Context, host component.Host) error {
	f.starts++
	f.host = host
	return f.startErr
}

func (f *fake) Shutdown(context.Context) error {
	f.shutdowns++
	componentstatus.ReportStatus(f.host, componentstatus.NewEvent(componentstatus.StatusOK))
	return f.shutdownErr
}

// recordingHost keeps the statuses that it hears of.
type recordingHost struct {
	statuses []componentstatus.Status
}

func (*recordingHost) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{component.MustNewID("zpages"): nil}
}

func (h *recordingHost) Report(event *componentstatus.Event) {
	h.statuses = append(h.statuses, event.Status())
}

func load(t *testing.T, m *Map[string, *fake], key string, fresh *fake) *Shared[*fake] {
	t.Helper()
	shared, err := m.LoadOrCreate(key, func() (*fake, error) { return fresh, nil })
	require.NoError(t, err)
	return shared
}

func TestOneComponentForEachKey(t *testing.T) {
	var m Map[string, *fake]
	first := &fake{}
	a := load(t, &m, "a", first)
	require.Same(t, a, load(t, &m, "a", &fake{}), "the same key gives the same component")
	require.NotSame(t, a, load(t, &m, "b", &fake{}), "another key gives another")
	assert.Same(t, first, a.Unwrap())
	assert.Equal(t, 2, m.Len())
}

func TestCreateErrorLeavesNothing(t *testing.T) {
	var m Map[string, *fake]
	_, err := m.LoadOrCreate("a", func() (*fake, error) { return nil, errors.New("no luck") })
	require.EqualError(t, err, "no luck")
	assert.Zero(t, m.Len())
}

func TestStartsAndStopsOnce(t *testing.T) {
	var m Map[string, *fake]
	f := &fake{}
	shared := load(t, &m, "a", f)
	for range 2 {
		require.NoError(t, shared.Start(t.Context(), &recordingHost{}))
	}
	for range 2 {
		require.NoError(t, shared.Shutdown(t.Context()))
	}
	assert.Equal(t, 1, f.starts)
	assert.Equal(t, 1, f.shutdowns)
	assert.Zero(t, m.Len(), "shut down means forgotten")
	require.Error(t, shared.Start(t.Context(), &recordingHost{}), "a component has one life")
}

func TestResultsAreRemembered(t *testing.T) {
	var m Map[string, *fake]
	f := &fake{startErr: errors.New("no start"), shutdownErr: errors.New("no end")}
	shared := load(t, &m, "a", f)
	for range 2 {
		require.EqualError(t, shared.Start(t.Context(), &recordingHost{}), "no start")
	}
	for range 2 {
		require.EqualError(t, shared.Shutdown(t.Context()), "no end")
	}
	assert.Equal(t, 1, f.starts)
	assert.Equal(t, 1, f.shutdowns)
}

// A pipeline that holds on to an old instance must not remove the one that took its place.
func TestLateShutdownLeavesTheSuccessor(t *testing.T) {
	var m Map[string, *fake]
	old := load(t, &m, "a", &fake{})
	require.NoError(t, old.Shutdown(t.Context()))
	successor := load(t, &m, "a", &fake{})
	require.NoError(t, old.Shutdown(t.Context()))
	assert.Same(t, successor, load(t, &m, "a", &fake{}))
}

func TestStatusReachesEveryHost(t *testing.T) {
	var m Map[string, *fake]
	f := &fake{}
	shared := load(t, &m, "a", f)
	early, late := &recordingHost{}, &recordingHost{}

	require.NoError(t, shared.Start(t.Context(), early))
	componentstatus.ReportStatus(f.host, componentstatus.NewRecoverableErrorEvent(errors.New("no privileges")))
	require.NoError(t, shared.Start(t.Context(), late))
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError}, early.statuses)
	assert.Equal(t, early.statuses, late.statuses, "a host that comes later hears the last status")

	componentstatus.ReportStatus(f.host, componentstatus.NewEvent(componentstatus.StatusOK))
	assert.Len(t, early.statuses, 2)
	assert.Len(t, late.statuses, 2)
	assert.Len(t, f.host.GetExtensions(), 1)

	require.NoError(t, shared.Shutdown(t.Context()))
	assert.Len(t, early.statuses, 2, "nothing is reported during shutdown: the service does that")
}

func TestConcurrentPipelines(t *testing.T) {
	var m Map[string, *fake]
	f := &fake{}
	var pipelines sync.WaitGroup
	for range 8 {
		pipelines.Go(func() {
			shared, err := m.LoadOrCreate("a", func() (*fake, error) { return f, nil })
			assert.NoError(t, err)
			assert.NoError(t, shared.Start(t.Context(), &recordingHost{}))
		})
	}
	pipelines.Wait()
	assert.Equal(t, 1, f.starts)
}
