//go:build linux

package http

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// certificate makes a file with a certificate for this host and its key.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	content := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	path := filepath.Join(t.TempDir(), "certificate.pem")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func serveGoTLS(t *testing.T) (*program, int) {
	t.Helper()
	server := start(t, []string{programVariable + "=serve", certificateVariable + "=" + certificate(t)},
		executable(t), "tcp", "127.0.0.1:0")
	return server, server.record(t).Port
}

func securely(port int, path string) string { return fmt.Sprintf("https://127.0.0.1:%d%s", port, path) }

// attached waits until the probe has attached to what programs encrypt with: those that run, and the libraries of the host.
func (o *observation) attached(programs ...*program) {
	o.t.Helper()
	<-o.secure.scanned
	for _, p := range programs {
		observed, err := o.secure.finder.Examine(uint32(p.Process.Pid), time.Now())
		require.NoError(o.t, err, p.name)
		require.True(o.t, observed, p.name)
	}
}

// securely gives the two spans of an exchange in TLS. A client that has all that it was promised does not wait for the end
// of the stream, so that its server may end later.
func (o *observation) secured(port int, path string) (client, server ptrace.Span) {
	o.t.Helper()
	clients := o.wait(1, ptrace.SpanKindClient, port, path)
	servers := o.wait(1, ptrace.SpanKindServer, port, path)
	require.Len(o.t, clients, 1, path)
	require.Len(o.t, servers, 1, path)
	client, server = clients[0], servers[0]
	assert.Equal(o.t, client.TraceID(), server.TraceID(), "%s: one trace", path)
	assert.Equal(o.t, client.SpanID(), server.ParentSpanID(), "%s: the server's parent", path)
	assert.LessOrEqual(o.t, client.StartTimestamp(), server.StartTimestamp()+50_000, "%s: the client begins", path)
	return client, server
}

func TestCurlToGoTLS(t *testing.T) {
	server, port := serveGoTLS(t)
	o := observe(t)
	o.attached(server)
	for _, version := range []string{"--http1.1", "--http2"} {
		path := "/curl/" + version[2:]
		told := curl(t, "-k", version, "-X", "POST", "--data-binary", "hello", securely(port, path+"?size=100000"))
		client, accepted := o.secured(port, path)
		check(t, client, told, false, false)
		check(t, accepted, server.record(t), false, false)
		for _, span := range []ptrace.Span{client, accepted} {
			assert.Equal(t, "https", scheme(span), path)
		}
	}
	assert.Empty(t, o.losses())
}

// scheme is url.scheme of a server, and that in url.full of a client.
func scheme(span ptrace.Span) string { return text(span, attrScheme) }
