package profileview

import (
	"bytes"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview/profiletest"
)

// Nothing in the page's own files may fetch, make HTML of text, or end the element that it is in. What it does is tested in
// a browser, in test/flamegraph.
func TestPageFiles(t *testing.T) {
	files, err := fs.ReadDir(pageFiles, "page")
	require.NoError(t, err)
	scripts := 0
	for _, file := range files {
		content, err := fs.ReadFile(pageFiles, "page/"+file.Name())
		require.NoError(t, err)
		assert.NotContains(t, string(content), "://", file.Name())
		if path.Ext(file.Name()) != ".js" {
			continue
		}
		scripts++
		assert.Contains(t, scriptParts(), file.Name())
		for _, forbidden := range []string{
			"</script", "<!--", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "fetch(", "import(",
		} {
			assert.NotContains(t, string(content), forbidden, file.Name())
		}
	}
	assert.Len(t, scriptParts(), scripts)
}

// The same profile makes the same page, and no name reaches it in the clear.
func TestPage(t *testing.T) {
	samples := profiletest.Mixed()
	samples[0].Stack = append(samples[0].Stack, profiletest.Frame{Name: "</script><img>", Kind: "native"})
	pages := make([]bytes.Buffer, 2)
	for i := range pages {
		require.NoError(t, collect(samples, Filter{}).WritePage(&pages[i], "{{DATA}}</title>", []string{"</p>"}))
	}
	assert.Equal(t, pages[0].String(), pages[1].String())
	page := pages[0].String()
	assert.Equal(t, 2, strings.Count(page, "</script>"), "that of the data and that of the code")
	assert.NotContains(t, page, "{{")
	assert.NotContains(t, page, "<img")
}

// Children stand by name, each row's value is at its leaf, and recursion is told as it was.
func TestTree(t *testing.T) {
	frame := func(name string) profiletest.Frame { return profiletest.Frame{Name: name, Kind: "native"} }
	process := profiletest.Process{Executable: "program", PID: 1}
	built := collect([]profiletest.Sample{
		{Process: process, Stack: []profiletest.Frame{frame("b"), frame("b")}, Count: 1},
		{Process: process, Stack: []profiletest.Frame{frame("b"), frame("a")}, Count: 2},
		{Process: process, Stack: []profiletest.Frame{frame("a")}, Count: 4},
		{Process: process, Stack: []profiletest.Frame{frame("b")}, Count: 8},
	}, Filter{Types: []string{"samples"}})
	tree := built.newTree()
	var names []string
	for place, node := range tree.nodes {
		name := built.text(tree.frames.entries[node.frame].name)
		names = append(names, strings.Repeat(" ", int(node.depth))+name)
		assert.Less(t, node.parent, int32(place))
	}
	assert.Equal(t, []string{"all", " program", "  a", "  b", "   a", "   b"}, names)
	var values []int64
	for _, row := range tree.rows {
		values = append(values, row.value)
	}
	assert.Equal(t, []int64{4, 8, 2, 1}, values)
}

func TestUnnamed(t *testing.T) {
	built := collect([]profiletest.Sample{{
		Process: profiletest.Process{Executable: "program"}, Count: 1,
		Stack: []profiletest.Frame{
			{Module: "/usr/lib/libz.so", Address: 0x402f40}, {Module: "/usr/lib/libz.so", Address: 0x10}, {Address: 0x7f00}, {},
		},
	}}, Filter{})
	tree := built.newTree()
	var names []string
	for _, node := range tree.nodes[2:] {
		names = append(names, built.text(tree.frames.entries[node.frame].name))
	}
	assert.Equal(t, []string{"[libz.so+0x2f40]", "[libz.so 0x10]", "[0x7f00]", "[unknown]"}, names)
}
