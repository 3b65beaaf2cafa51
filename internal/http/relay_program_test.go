//go:build linux

package http

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// relayMain is a server that asks another server before it answers: GET /relay/7?port=80 asks for /next/7 there. how says
// with which client: "http1", "http2", or either within TLS ("https1", "https2"); and "child" of them: on a goroutine of the
// request's own. With "left" in the query, the goroutine goes on after the response.
func relayMain(how string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	how, child := strings.CutSuffix(how, " child")
	protocols := &http.Protocols{}
	protocols.SetHTTP1(strings.HasSuffix(how, "1"))
	protocols.SetHTTP2(strings.HasSuffix(how, "2"))
	protocols.SetUnencryptedHTTP2(strings.HasSuffix(how, "2"))
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 100, Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	var out records
	out.say(record{Port: listener.Addr().(*net.TCPAddr).Port})
	served := &http.Protocols{}
	served.SetHTTP1(true)
	served.SetUnencryptedHTTP2(true)
	server := http.Server{Protocols: served, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		address := how[:len(how)-1] + "://127.0.0.1:" + query.Get("port") +
			strings.Replace(r.URL.Path, "/relay/", "/next/", 1) + "?ms=" + query.Get("ms")
		ask := func() {
			response, err := client.Get(address)
			if err != nil {
				out.say(record{Error: err.Error()})
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		done := make(chan struct{})
		switch {
		case query.Has("left"):
			go func() {
				time.Sleep(time.Millisecond)
				ask()
			}()
			close(done)
		case child:
			go func() {
				defer close(done)
				ask()
			}()
		default:
			ask()
			close(done)
		}
		<-done
		w.WriteHeader(http.StatusOK)
	})}
	return server.Serve(listener)
}
