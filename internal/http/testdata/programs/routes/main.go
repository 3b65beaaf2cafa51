// Command routes serves requests by muxes of net/http, and says which route it has found for each: ROUTES [CERTIFICATE],
// where the file has a certificate and its key. It compiles with Go 1.21, too, whose mux has no patterns.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"
)

type contextKey struct{}

var (
	mutex sync.Mutex
	out   = bufio.NewWriter(os.Stdout)
)

func say(line string) {
	mutex.Lock()
	defer mutex.Unlock()
	fmt.Fprintln(out, line)
	out.Flush()
}

// handle answers with so many bytes. Where the mux that calls it is given the request as it came, it is checked that the
// request has the pattern.
func handle(mux *http.ServeMux, pattern, route string, bytes int) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		said := route
		if has := reflect.ValueOf(r).Elem().FieldByName("Pattern"); has.IsValid() && has.String() != pattern {
			said = "the request has the pattern " + has.String()
		}
		say(fmt.Sprintf(`{"path":%q,"method":%q}`, r.Header.Get("x-request-id"), said))
		if bytes > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(bytes))
		}
		w.Write([]byte(strings.Repeat("x", bytes)))
	})
}

func routes() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "GET /items/{id}", "/items/{id}", 0)
	handle(mux, "POST /items/{name}", "/items/{name}", 10)
	handle(mux, "/files/{rest...}", "/files/{rest...}", 0)
	handle(mux, "example.com/hosted/{x}", "/hosted/{x}", 5)
	handle(mux, "GET example.com/hosted/{x}/both", "/hosted/{x}/both", 5)
	handle(mux, "/exact/{$}", "/exact/{$}", 0)
	handle(mux, "/tree/", "/tree/", 0)
	handle(mux, "/static/readme", "/static/readme", 0)
	handle(mux, "/large/{n}", "/large/{n}", 100_000)

	nested := http.NewServeMux()
	handle(nested, "/api/v1/users/{user}", "/api/v1/users/{user}", 0)
	mux.Handle("/api/", nested)

	stripped := http.NewServeMux()
	handle(stripped, "/orders/{order}", "/stripped/orders/{order}", 0)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", stripped))

	slow := http.NewServeMux()
	handle(slow, "/slow/{n}", "/slow/{n}", 0)
	mux.Handle("/slow/", http.TimeoutHandler(slow, time.Minute, "late"))

	withContext := http.NewServeMux()
	handle(withContext, "/context/{c}", "/context/{c}", 0)
	mux.HandleFunc("/context/", func(w http.ResponseWriter, r *http.Request) {
		withContext.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, "value")))
	})

	long := "/long/" + strings.Repeat("a", 130)
	mux.HandleFunc(long, func(http.ResponseWriter, *http.Request) {})
	return mux
}

func main() {
	server := &http.Server{Handler: routes()}
	setProtocols(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	say(fmt.Sprintf(`{"port":%d}`, listener.Addr().(*net.TCPAddr).Port))
	if len(os.Args) > 1 {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		panic(server.ServeTLS(listener, os.Args[1], os.Args[1]))
	}
	panic(server.Serve(listener))
}
