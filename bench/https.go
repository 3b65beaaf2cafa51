//go:build linux

package main

import (
	"fmt"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/tlstest"
)

// runHTTPS is runHTTP over TLS: wrk encrypts with OpenSSL, nginx as well, and the Go server with crypto/tls.
func runHTTPS(opts options, r *report) error {
	certificate, err := tlstest.Certificate()
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	for _, server := range []string{httpServerName, nginxName} {
		measured, err := runRequests(server, httpListen{Certificate: certificate}, opts, r)
		if err != nil {
			return err
		}
		measured.complete(server, r)
	}
	return nil
}
