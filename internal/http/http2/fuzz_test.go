package http2_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2"
	"github.com/ebpfreceiver/ebpfreceiver/internal/http/http2/http2test"
)

// FuzzDecoder gives any calls to a decoder. It must not panic, and must keep to its bounds.
func FuzzDecoder(f *testing.F) {
	w := newWriter()
	w.headers(1, false, ":method", "GET", ":path", "/a", "x-request-id", "b")
	_ = w.WriteDataPadded(1, true, []byte("hello"), make([]byte, 9))
	_ = w.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 77})
	_ = w.WriteGoAway(9, 0, nil)
	f.Add(w.Bytes(), uint32(0), uint32(0), uint8(0), uint8(0), false, uint8(7))
	f.Add(w.Bytes(), uint32(1000), uint32(12), uint8(3), uint8(0), true, uint8(30))
	f.Add(append([]byte(http2test.Preface), w.Bytes()...), uint32(0), uint32(0), uint8(0), uint8(24), false, uint8(200))
	f.Fuzz(func(t *testing.T, data []byte, offset, left uint32, have, preface uint8, truncated bool, step uint8) {
		found := &log{}
		decoder := http2.Decoder{Handler: found}
		call := http2.Call{Offset: offset, FrameLeft: left, HeaderHave: have, Preface: preface, Truncated: truncated}
		for i := 0; len(data) > 0; i++ {
			took := min(len(data), int(step)+1)
			call.Captured = data[:took]
			call.Length = uint32(took) + uint32(data[0])*uint32(i%3)
			err := decoder.Call(&call)
			if err != nil {
				lines := len(found.lines)
				require.Equal(t, err, decoder.Call(&call))
				require.Len(t, found.lines, lines)
			}
			call.Offset += call.Length
			call.FrameLeft, call.HeaderHave, call.Preface = left*uint32(i%2), have*uint8(i%2), 0
			data = data[took:]
		}
	})
}

// FuzzBlocks compares header blocks with what golang.org/x/net/http2/hpack reads in them, from the beginning of a
// connection, and after a loss: then everything that is known must be true.
func FuzzBlocks(f *testing.F) {
	w := newWriter()
	for range 3 {
		f.Add(w.fields(":method", "GET", ":path", "/a", "x-request-id", "b", "x-b3-traceid", "c"),
			w.fields(":method", "GET", ":path", "/b", "x-request-id", "b", "x-long", string(make([]byte, 5000)), "grpc-status", "1"))
	}
	f.Add([]byte("\x20\x3f\xe1\x1f\x82\xbe"), []byte("\x44\x01a\xbe\x7e\x01b"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if len(one) > 1<<15 || len(two) > 1<<15 {
			return
		}
		// The same blocks again and again refer to their own entries.
		blocks := [][]byte{one, two, one, two}
		for joined := range blocks {
			reference := hpack.NewDecoder(4096, nil)
			var values recorder
			decoder := http2.Decoder{Handler: &values}
			compactor := http2test.Compactor{NoPreface: true}
			for i, block := range blocks {
				fields, err := reference.DecodeFull(block)
				if err != nil {
					break // the encoder does not keep to the protocol
				}
				w := newWriter()
				_ = w.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
				call := compactor.Call(w.Bytes(), 1)
				if i < joined {
					continue
				}
				values.headers = nil
				require.NoError(t, decoder.Call(&call))
				require.NotNil(t, values.headers)
				require.False(t, values.headers.Unknown && joined == 0)
				for _, n := range named {
					var all []string
					for _, field := range fields {
						if field.Name == n.name {
							all = append(all, field.Value)
						}
					}
					switch got := values.headers.Value(n.field); {
					case !values.headers.Has(n.field):
						require.True(t, len(all) == 0 || values.headers.Unknown, n.name)
					case values.headers.Unknown:
						require.Contains(t, all, got)
					default:
						require.Equal(t, all[0], got)
					}
				}
			}
		}
	})
}

// recorder keeps the last header block.
type recorder struct {
	log
	headers *http2.Headers
}

func (r *recorder) Headers(h *http2.Headers) { copied := *h; r.headers = &copied }
