//go:build linux

package tls

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const someMaps = `55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 1049 /usr/bin/program
55d0c0a02000-55d0c0a06000 r-xp 00002000 fe:01 1049                       /usr/bin/program
55d0c2000000-55d0c2021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7f1000000000-7f1000001000 r-xp 00000000 fe:01 77                         /opt/with space/libssl.so.3 (deleted)
7f1000001000-7f1000002000 r-xp 00001000 fe:01 77                         /opt/with space/libssl.so.3 (deleted)
7f1000002000-7f1000003000 r-xp 00000000 fe:01 78                         /opt/with space/libssl.so.3
7f2000000000-7f2000001000 r-xs 00000000 00:0e 9                          anon_inode:[perf_event]
00400000-00500000 r-xp 00000000 fe:01 80                                 /usr/bin/fixed
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
`

func TestReadMaps(t *testing.T) {
	found, truncated, err := readMaps(strings.NewReader(someMaps), 10)
	require.NoError(t, err)
	assert.False(t, truncated)
	assert.Equal(t, []mapping{
		{span: "55d0c0a02000-55d0c0a06000", path: "/usr/bin/program"},
		{span: "7f1000000000-7f1000001000", path: "/opt/with space/libssl.so.3", deleted: true},
		{span: "7f1000002000-7f1000003000", path: "/opt/with space/libssl.so.3"},
		{span: "400000-500000", path: "/usr/bin/fixed"},
	}, found)

	found, truncated, err = readMaps(strings.NewReader(someMaps), 2)
	require.NoError(t, err)
	assert.True(t, truncated)
	assert.Len(t, found, 2)
}

func FuzzReadMaps(f *testing.F) {
	f.Add(someMaps)
	f.Fuzz(func(t *testing.T, text string) {
		found, _, _ := readMaps(strings.NewReader(text), 100)
		for _, mapping := range found {
			if !strings.HasPrefix(mapping.path, "/") {
				t.Fatalf("the path of %+v is not absolute", mapping)
			}
		}
	})
}
