//go:build linux

package http

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// proxyMain is a server that hands each request on to another server, and its answer back as it comes. It speaks HTTP/1 on
// both sides, within TLS where it has a certificate.
func proxyMain(to, certificate string) error {
	target, err := url.Parse(to)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	proxy.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true,
	}
	var out records
	out.say(record{Port: listener.Addr().(*net.TCPAddr).Port})
	// The models answer as soon as they have read the body: without this, net/http may close it under the transport, which has
	// yet to see its end and gives the connection up.
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	})
	server := http.Server{Handler: handler, Protocols: &http.Protocols{}}
	server.Protocols.SetHTTP1(true)
	if certificate != "" {
		return server.ServeTLS(listener, certificate, certificate)
	}
	return server.Serve(listener)
}
