package http1

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestB3HasTheFormOfTheSingleHeader(t *testing.T) {
	const ids = "X-B3-TraceId: 80f198ee56343ba8\r\nX-B3-SpanId: 05e3ac9a4f6e3b90\r\n"
	for fields, want := range map[string]string{
		"": "",
		"b3: 80f198ee56343ba8-05e3ac9a4f6e3b90-1\r\n": "80f198ee56343ba8-05e3ac9a4f6e3b90-1",
		"b3: 0\r\n":                                  "0",
		"b3: 0\r\nb3: 1\r\n":                         "0",
		"b3: 0\r\n" + ids:                            "0", // the single header comes first
		ids + "b3: d\r\n":                            "d",
		ids:                                          "80f198ee56343ba8-05e3ac9a4f6e3b90",
		ids + "x-b3-sampled: 1\r\n":                  "80f198ee56343ba8-05e3ac9a4f6e3b90-1",
		ids + "X-B3-Sampled: 0\r\n":                  "80f198ee56343ba8-05e3ac9a4f6e3b90-0",
		ids + "X-B3-Sampled: true\r\n":               "80f198ee56343ba8-05e3ac9a4f6e3b90-1",
		ids + "X-B3-Sampled: false\r\n":              "80f198ee56343ba8-05e3ac9a4f6e3b90-0",
		ids + "X-B3-Sampled: maybe\r\n":              "80f198ee56343ba8-05e3ac9a4f6e3b90",
		ids + "X-B3-Flags: 1\r\n":                    "80f198ee56343ba8-05e3ac9a4f6e3b90-d",
		ids + "X-B3-Flags: 1\r\nX-B3-Sampled: 0\r\n": "80f198ee56343ba8-05e3ac9a4f6e3b90-d",
		ids + "X-B3-Flags: 0\r\nX-B3-Sampled: 0\r\n": "80f198ee56343ba8-05e3ac9a4f6e3b90-0",
		ids + "X-B3-Sampled: 1\r\nX-B3-ParentSpanId: e457b5a2e4d86bd1\r\n": "80f198ee56343ba8-05e3ac9a4f6e3b90-1-e457b5a2e4d86bd1",
		ids + "X-B3-ParentSpanId: e457b5a2e4d86bd1\r\n":                    "80f198ee56343ba8-05e3ac9a4f6e3b90",
		"X-B3-Sampled: 0\r\n":                                  "0",
		"X-B3-TraceId: 80f198ee56343ba8\r\n":                   "",
		"X-B3-SpanId: 05e3ac9a4f6e3b90\r\nX-B3-Sampled: 0\r\n": "0",
		"X-B3-: 1\r\nX-B3-Other: 1\r\nX-B3: 1\r\n":             "",
	} {
		var request Request
		require.Equal(t, Complete, request.Parse([]byte("GET / HTTP/1.1\r\n"+fields+"\r\n")))
		assert.Equal(t, want, request.B3.Text(), fields)
	}
}

func TestB3ThatIsNotThereAllocatesNothing(t *testing.T) {
	for _, fields := range []string{"", "X-B3-Sampled: 0\r\n"} {
		captured := []byte("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
		var request Request
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			request.Parse(captured)
			if len(request.B3.Text()) > 1 {
				t.Error("there is no B3 with ids")
			}
		}), fields)
	}
}
