//go:build linux

package http

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/tls/site"
)

// The end of a read that has its arguments is told with a register for each; where no register is, the kernel side reads
// nothing.
func TestSiteCookieOfReadEnd(t *testing.T) {
	end := site.Site{
		Event:      site.ReadReturn,
		Connection: site.Place{Register: site.RBX, Bits: 64}, Buffer: site.Place{Register: site.RBP, Bits: 64},
		Count: site.Place{Register: site.R14, Bits: 64}, Result: site.Place{Register: site.RAX, Bits: 32},
	}
	registers := func(encoded uint64) (indexes [5]uint64) {
		for i := range indexes {
			indexes[i] = encoded >> (8 + 5*i) & 31
		}
		return indexes
	}
	encoded := siteCookie(tls.Target{}, end)
	assert.EqualValues(t, bpfTlsEventTLS_READ_END, encoded&0xff)
	assert.Equal(t, [5]uint64{5, 4, 1, 10, 31}, registers(encoded), "of struct pt_regs")

	end.Peek = site.Place{Register: site.R13, Bits: 32}
	assert.Equal(t, [5]uint64{5, 4, 1, 10, 2}, registers(siteCookie(tls.Target{}, end)))
}
