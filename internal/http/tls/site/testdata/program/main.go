// Command program reads and writes by TLS, so that its functions can be looked for.
package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
)

func main() {
	connection, err := tls.Dial("tcp", os.Args[1], nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	connection.Write([]byte("ping"))
	connection.Read(make([]byte, 4))
	http.Get("https://" + os.Args[1])
}
