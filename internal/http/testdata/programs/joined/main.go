// Command joined is a server and a client of HTTP/2 in TLS, for any version of Go: it needs nothing but net/http. The
// client makes as many requests as each line of its input says, on one connection.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	var err error
	if len(os.Args) > 1 {
		err = call(os.Args[1])
	} else {
		err = serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("{\"port\":%d}\n", listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Path", r.URL.Path)
		}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}},
	}
	return server.ServeTLS(listener, "", "")
}

func call(port string) error {
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}}
	number := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		count, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		var group sync.WaitGroup
		queue := make(chan int)
		for i := 0; i < 4; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for number := range queue {
					if err := ask(&client, port, number); err != nil {
						fmt.Printf("{\"error\":%q}\n", err.Error())
					}
				}
			}()
		}
		for i := 0; i < count; i++ {
			queue <- number
			number++
		}
		close(queue)
		group.Wait()
		fmt.Printf("{\"status\":%d}\n", count)
	}
	return nil
}

func ask(client *http.Client, port string, number int) error {
	request, err := http.NewRequest("GET", fmt.Sprintf("https://127.0.0.1:%s/service/%d", port, number%2), nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Number", strconv.Itoa(number))
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.ProtoMajor != 2 {
		return fmt.Errorf("it is %s", response.Proto)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
