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

// attachedTo waits until the probe has attached to what a program encrypts with.
func (o *observation) attachedTo(p *program) {
	o.t.Helper()
	require.Eventually(o.t, func() bool {
		observed, err := o.secure.finder.Examine(uint32(p.Process.Pid), time.Now())
		return err == nil && observed
	}, patience, 10*time.Millisecond, p.name)
}

func TestCurlToGoTLS(t *testing.T) {
	server, port := serveGoTLS(t)
	o := observe(t)
	o.attachedTo(server)
	for _, version := range []string{"--http1.1", "--http2"} {
		path := "/curl/" + version[2:]
		told := curl(t, "-k", version, "-X", "POST", "--data-binary", "hello", securely(port, path+"?size=100000"))
		client, accepted := o.ends(port, path)
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
