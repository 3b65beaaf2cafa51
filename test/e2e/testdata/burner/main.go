// The burner serves two paths, each with a function of its own that computes for some time, one of them in a goroutine of its
// own. It writes the port that it listens on.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

const rounds = 5_000_000

//go:noinline
func burnHere() int {
	sum := 0
	for i := range rounds {
		sum += i * i % 7
	}
	return sum
}

//go:noinline
func burnElsewhere() int {
	sum := 1
	for i := range rounds {
		sum += i * i % 11
	}
	return sum
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.HandleFunc("/here", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, burnHere()) })
	http.HandleFunc("/elsewhere", func(w http.ResponseWriter, _ *http.Request) {
		result := make(chan int)
		go func() { result <- burnElsewhere() }()
		fmt.Fprintln(w, <-result)
	})
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
	os.Exit(1)
}
