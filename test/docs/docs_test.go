// Package docs holds the documentation to the code.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Attributes of metrics that no flow record has.
var notOfFlowRecords = map[string]bool{
	"network.tcp.retransmit.type": true,
	"otel.metric.overflow":        true,
}

// Every attribute that the TCP probe has a name of its own for is in flow-records.md. Those of the semantic conventions
// are checked end to end, by what is really sent.
func TestFlowRecordAttributes(t *testing.T) {
	content, err := os.ReadFile("../../docs/flow-records.md")
	require.NoError(t, err)
	parsed, err := parser.ParseFile(token.NewFileSet(), "../../internal/tcp/names.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	found := 0
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "attr") {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		name, err := strconv.Unquote(literal.Value)
		require.NoError(t, err)
		if !notOfFlowRecords[name] {
			found++
			assert.Contains(t, string(content), "`"+name+"`")
		}
		return true
	})
	assert.Greater(t, found, 40)
}

var link = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)

// Links between the pages, and to files of the repository, lead somewhere.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	for _, page := range append(pages, "../../README.md", "../../CONTRIBUTING.md",
		"../../receiver/ebpfreceiver/README.md", "../../receiver/ebpfreceiver/telemetry.md") {
		content, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, match := range link.FindAllStringSubmatch(string(content), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(page), match[1]))
			assert.NoError(t, err, "%s", page)
		}
	}
}
