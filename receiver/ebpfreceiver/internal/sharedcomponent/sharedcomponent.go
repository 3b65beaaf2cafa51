// Package sharedcomponent lets all pipelines of one configuration share one running component.
package sharedcomponent

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
)

// Map holds the shared components of one factory by key, usually the pointer to their configuration.
// The zero value is ready for use.
type Map[K comparable, V component.Component] struct {
	mu         sync.Mutex
	components map[K]*Shared[V]
}

// LoadOrCreate returns the component of key, made by create when there is none yet. The component leaves the map when it
// is shut down, so that the same key can start a new life.
func (m *Map[K, V]) LoadOrCreate(key K, create func() (V, error)) (*Shared[V], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if shared, ok := m.components[key]; ok {
		return shared, nil
	}
	component, err := create()
	if err != nil {
		return nil, err
	}
	if m.components == nil {
		m.components = make(map[K]*Shared[V])
	}
	shared := &Shared[V]{component: component}
	shared.forget = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.components[key] == shared {
			delete(m.components, key)
		}
	}
	m.components[key] = shared
	return shared, nil
}

// Len returns how many components live.
func (m *Map[K, V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.components)
}

// Shared is a component that several pipelines start and shut down, each once, and that runs once.
type Shared[V component.Component] struct {
	component V
	forget    func()

	mu          sync.Mutex // serialises Start and Shutdown
	started     bool
	startErr    error
	stopped     bool
	shutdownErr error
	hosts       hosts
}

// Unwrap returns the component itself.
func (s *Shared[V]) Unwrap() V { return s.component }

// Start starts the component at the first call. Later calls return the result of the first; they add their host to
// those that hear of the component's status.
func (s *Shared[V]) Start(ctx context.Context, host component.Host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("cannot start a component that was shut down")
	}
	s.hosts.add(host)
	if !s.started {
		s.started = true
		s.startErr = s.component.Start(ctx, &s.hosts)
	}
	return s.startErr
}

// Shutdown stops the component at the first call, because no pipeline may receive data after its own shutdown has
// returned and those of one configuration end together. Later calls return the result of the first.
func (s *Shared[V]) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return s.shutdownErr
	}
	s.stopped = true
	s.hosts.silence()
	s.shutdownErr = s.component.Shutdown(ctx)
	s.forget()
	return s.shutdownErr
}

// hosts is the host that the component sees: it passes the status on to the hosts of all pipelines, each of which knows
// the component under another instance id.
type hosts struct {
	mu     sync.Mutex
	all    []component.Host
	last   *componentstatus.Event
	silent bool
}

var _ componentstatus.Reporter = (*hosts)(nil)

func (h *hosts) add(host component.Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, host)
	if h.last != nil && !h.silent {
		componentstatus.ReportStatus(host, h.last)
	}
}

// silence ends status reports: during shutdown the service reports by itself.
func (h *hosts) silence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = true
}

// Report implements componentstatus.Reporter.
func (h *hosts) Report(event *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.silent {
		return
	}
	h.last = event
	for _, host := range h.all {
		componentstatus.ReportStatus(host, event)
	}
}

// GetExtensions implements component.Host. All pipelines of one Collector have the same extensions.
func (h *hosts) GetExtensions() map[component.ID]component.Component {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) == 0 {
		return nil
	}
	return h.all[0].GetExtensions()
}
