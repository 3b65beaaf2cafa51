//go:build linux

package tcp

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/ebpfreceiver/ebpfreceiver/internal/tcp/puppet"
)

// update rewrites the golden files: go test ./internal/tcp -update
var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	puppet.Main()
	goleak.VerifyTestMain(m)
}
