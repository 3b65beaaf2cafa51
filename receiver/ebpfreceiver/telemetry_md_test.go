//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// literalNames reads the string constants of a probe whose names begin with prefix and whose values are spelled out.
func literalNames(t *testing.T, file, prefix string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var names []string
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			name, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			names = append(names, name)
		}
		return true
	})
	return names
}

// Every metric and every attribute that a probe has a name for is in telemetry.md, and no other metric is.
func TestTelemetryPageIsComplete(t *testing.T) {
	const tcpNames, httpNames = "../../internal/tcp/names.go", "../../internal/http/names.go"
	content, err := os.ReadFile("telemetry.md")
	require.NoError(t, err)

	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:system|http|rpc|gen_ai)\\.[a-z_.]+)` \\| histogram|^\\| `(system\\.[a-z_.]+)` \\| (?:sum|gauge)").FindAllStringSubmatch(string(content), -1) {
		documented = append(documented, row[1]+row[2])
	}
	assert.ElementsMatch(t, append(literalNames(t, tcpNames, "Metric"), literalNames(t, httpNames, "Metric")...), documented)

	attributes := append(literalNames(t, tcpNames, "attr"), literalNames(t, httpNames, "attr")...)
	assert.Greater(t, len(attributes), 30)
	for _, attribute := range attributes {
		assert.Contains(t, string(content), "| `"+attribute+"` |")
	}
}
