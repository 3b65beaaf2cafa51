//go:build linux

package http

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	logobserver "go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
)

// On a host that has no uprobes for us, HTTP without TLS is observed all the same; one warning says so, and connections in
// TLS are counted.
func TestWithoutUprobes(t *testing.T) {
	secureServer, securePort := serveGoTLS(t)
	server := start(t, []string{programVariable + "=serve"}, executable(t), "tcp", "127.0.0.1:0")
	port := server.record(t).Port
	core, logged := logobserver.New(zapcore.WarnLevel)
	o := observe(t, func(p *Probe) {
		p.logger = zap.New(core)
		p.haveTLS = func() error {
			return &kernel.UnsupportedError{Feature: "uprobe_multi links", Floor: "6.6", Config: "CONFIG_UPROBE_EVENTS", Err: unix.EINVAL}
		}
	})

	curl(t, "-k", "--http2", securely(securePort, "/secure"))
	assert.Equal(t, "/secure", secureServer.record(t).Path)
	told := curl(t, at(port, "/plain"))
	for _, kind := range []ptrace.SpanKind{ptrace.SpanKindClient, ptrace.SpanKindServer} {
		spans := o.wait(1, kind, port, "/plain")
		require.Len(t, spans, 1)
		assert.EqualValues(t, told.Status, number(spans[0], attrStatusCode))
		assert.Empty(t, o.wait(0, kind, securePort, "/secure"))
	}
	assert.Equal(t, map[string]uint64{"tls_unobserved": 2}, o.losses(), "both ends of one connection")
	for _, attachment := range o.Attachments() {
		assert.NotEqual(t, "http.tls", attachment.Capability)
	}
	require.Equal(t, 1, logged.Len(), "%v", logged.All())
	warning := logged.All()[0]
	assert.Contains(t, warning.Message, "Cannot observe TLS on this host")
	assert.ErrorContains(t, warning.Context[0].Interface.(error), "CONFIG_UPROBE_EVENTS")
}

// Where there are uprobes, they are a capability like the other hooks.
func TestUprobesAreACapability(t *testing.T) {
	o := observe(t)
	var capabilities []string
	for _, attachment := range o.Attachments() {
		capabilities = append(capabilities, attachment.String())
	}
	assert.Contains(t, capabilities, "http.tls: uprobe_multi")
}
