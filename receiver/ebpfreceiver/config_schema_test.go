//go:build linux && (amd64 || arm64)

package ebpfreceiver

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// schemaNode is as much of JSON schema as config.schema.yaml uses.
type schemaNode struct {
	Ref         string                 `yaml:"$ref"`
	Description string                 `yaml:"description"`
	Type        schemaTypes            `yaml:"type"`
	Format      string                 `yaml:"format"`
	Pattern     string                 `yaml:"pattern"`
	Default     any                    `yaml:"default"`
	Enum        []string               `yaml:"enum"`
	Minimum     *int                   `yaml:"minimum"`
	Maximum     *int                   `yaml:"maximum"`
	Shortest    string                 `yaml:"x-minimum"`
	Longest     string                 `yaml:"x-maximum"`
	Closed      *bool                  `yaml:"additionalProperties"`
	Properties  schemaProperties       `yaml:"properties"`
	Items       *schemaNode            `yaml:"items"`
	Defs        map[string]*schemaNode `yaml:"$defs"`
}

// schemaTypes is one type or a list of alternatives.
type schemaTypes []string

func (s *schemaTypes) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*s = schemaTypes{node.Value}
		return nil
	}
	return node.Decode((*[]string)(s))
}

// schemaProperties keeps the order of the file, which is the order of the documentation.
type schemaProperties []schemaProperty

type schemaProperty struct {
	name   string
	schema *schemaNode
}

func (s *schemaProperties) UnmarshalYAML(node *yaml.Node) error {
	for i := 0; i < len(node.Content); i += 2 {
		property := schemaProperty{name: node.Content[i].Value, schema: &schemaNode{}}
		if err := node.Content[i+1].Decode(property.schema); err != nil {
			return err
		}
		*s = append(*s, property)
	}
	return nil
}

func readSchema(t *testing.T) *schemaNode {
	t.Helper()
	content, err := os.ReadFile("config.schema.yaml")
	require.NoError(t, err)
	root := &schemaNode{}
	require.NoError(t, yaml.Unmarshal(content, root))
	return root
}

func (s *schemaNode) resolve(root *schemaNode) *schemaNode {
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		return root.Defs[name]
	}
	return s
}

// Every key of the struct is in the schema with its type and default, and the other way round.
func TestSchemaMatchesConfig(t *testing.T) {
	root := readSchema(t)
	compareObject(t, root, root, reflect.ValueOf(createDefaultConfig()).Elem(), "")
}

func compareObject(t *testing.T, root, schema *schemaNode, value reflect.Value, path string) {
	t.Helper()
	if assert.NotNil(t, schema.Closed, "%s: additionalProperties must be set", path) {
		assert.False(t, *schema.Closed, "%s: the Collector refuses keys that it does not know", path)
	}
	inSchema := map[string]*schemaNode{}
	for _, property := range schema.Properties {
		inSchema[property.name] = property.schema
	}
	for i := range value.NumField() {
		key := value.Type().Field(i).Tag.Get("mapstructure")
		keyPath := strings.TrimPrefix(path+"."+key, ".")
		node := inSchema[key]
		delete(inSchema, key)
		if assert.NotNil(t, node, "%s is not in config.schema.yaml", keyPath) {
			compareValue(t, root, node.resolve(root), value.Field(i), keyPath)
		}
	}
	for key := range inSchema {
		assert.Fail(t, "config.schema.yaml has a key that Config has not", "%s.%s", path, key)
	}
}

func compareValue(t *testing.T, root, schema *schemaNode, value reflect.Value, path string) {
	t.Helper()
	assert.NotEmpty(t, schema.Description, "%s: no description", path)
	if actual, ok := value.Interface().(time.Duration); ok {
		assert.Equal(t, schemaTypes{"string"}, schema.Type, path)
		assert.Equal(t, "duration", schema.Format, path)
		byDefault, err := time.ParseDuration(fmt.Sprint(schema.Default))
		assert.NoError(t, err, path)
		assert.Equal(t, byDefault, actual, path)
		return
	}
	switch value.Kind() {
	case reflect.Struct:
		assert.Equal(t, schemaTypes{"object"}, schema.Type, path)
		compareObject(t, root, schema, value, path)
	case reflect.Slice:
		assert.Equal(t, schemaTypes{"array"}, schema.Type, path)
		byDefault, _ := schema.Default.([]any)
		actual := []any{}
		for i := range value.Len() {
			actual = append(actual, value.Index(i).Interface())
		}
		assert.Equal(t, byDefault, actual, path)
		items := schema.Items.resolve(root)
		if value.Type().Elem().Kind() == reflect.String {
			assert.Equal(t, schemaTypes{"string"}, items.Type, path)
			return
		}
		compareObject(t, root, items, reflect.New(value.Type().Elem()).Elem(), path+"[]")
	case reflect.Bool:
		assert.Equal(t, schemaTypes{"boolean"}, schema.Type, path)
		assert.Equal(t, schema.Default, value.Bool(), path)
	case reflect.String:
		assert.Contains(t, schema.Type, "string", path)
		assert.Equal(t, schema.Default, value.String(), path)
	case reflect.Int, reflect.Uint32:
		assert.Equal(t, schemaTypes{"integer"}, schema.Type, path)
		assert.EqualValues(t, schema.Default, value.Interface(), path)
	case reflect.Float64:
		assert.Equal(t, schemaTypes{"number"}, schema.Type, path)
		assert.EqualValues(t, schema.Default, value.Float(), path)
	default:
		assert.Fail(t, "the test does not know this type", "%s: %s", path, value.Type())
	}
}

// The bounds and enumerations of the schema are those that Validate applies, to the last step.
func TestSchemaMatchesValidation(t *testing.T) {
	root := readSchema(t)
	checked := 0
	check := func(path string, set func(reflect.Value), good bool) {
		config := createDefaultConfig().(*Config)
		set(at(reflect.ValueOf(config).Elem(), path))
		err := config.Validate()
		if good {
			assert.NoError(t, err)
		} else {
			assert.ErrorContains(t, err, path+": ")
		}
		checked++
	}
	var walk func(node *schemaNode, prefix string)
	walk = func(node *schemaNode, prefix string) {
		for _, property := range node.Properties {
			path, schema := prefix+property.name, property.schema
			walk(schema, path+".")
			if schema.Minimum != nil {
				for value, good := range map[int]bool{
					*schema.Minimum - 1: false, *schema.Minimum: true, *schema.Maximum: true, *schema.Maximum + 1: false,
				} {
					check(path, func(field reflect.Value) { field.Set(reflect.ValueOf(value).Convert(field.Type())) }, good)
				}
			}
			if schema.Shortest != "" {
				shortest, err := time.ParseDuration(schema.Shortest)
				require.NoError(t, err)
				longest, err := time.ParseDuration(schema.Longest)
				require.NoError(t, err)
				for value, good := range map[time.Duration]bool{
					shortest - 1: false, shortest: true, longest: true, longest + 1: false,
				} {
					check(path, func(field reflect.Value) { field.SetInt(int64(value)) }, good)
				}
			}
			for _, value := range schema.Enum {
				check(path, func(field reflect.Value) { field.SetString(value) }, true)
			}
			if len(schema.Enum) > 0 || schema.Pattern != "" {
				check(path, func(field reflect.Value) { field.SetString("something else") }, false)
			}
		}
	}
	walk(root, "")
	assert.Greater(t, checked, 25, "the schema's constraints were found")
}

// at follows a path of keys such as tcp.flow_logs.
func at(value reflect.Value, path string) reflect.Value {
	for key := range strings.SplitSeq(path, ".") {
		value = value.FieldByIndex(slices.Collect(func(yield func(int) bool) {
			for i := range value.NumField() {
				if value.Type().Field(i).Tag.Get("mapstructure") == key {
					yield(i)
					return
				}
			}
		}))
	}
	return value
}

const (
	tableStart = "<!-- made from config.schema.yaml -->\n"
	tableEnd   = "<!-- end -->\n"
)

// The reference in the project's README.md and in the component's is what the schema says.
func TestREADMEHasTheConfigurationReference(t *testing.T) {
	root := readSchema(t)
	var table strings.Builder
	table.WriteString("| Key | Type | Default | Meaning |\n| --- | ---- | ------- | ------- |\n")
	writeRows(&table, root, root, "")

	for _, path := range []string{"README.md", "../../README.md"} {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		_, rest, found := strings.Cut(string(content), tableStart)
		require.True(t, found, "%s lacks the line %q", path, tableStart)
		actual, _, found := strings.Cut(rest, tableEnd)
		require.True(t, found, "%s lacks the line %q", path, tableEnd)
		require.Equal(t, table.String(), actual, "put this between the marks of %s:\n%s", path, table.String())
	}
}

func writeRows(table *strings.Builder, root, schema *schemaNode, prefix string) {
	for _, property := range schema.Properties {
		node := property.schema
		key := prefix + property.name
		if len(node.Properties) > 0 {
			writeRows(table, root, node, key+".")
			continue
		}
		fmt.Fprintf(table, "| `%s` | %s | %s | %s%s |\n",
			key, node.typeText(), node.defaultText(), node.Description, node.boundsText())
		switch {
		case key == "select.include":
			writeRows(table, root, node.Items.resolve(root), "select.*[].")
		case key != "select.exclude" && node.Items != nil:
			writeRows(table, root, node.Items.resolve(root), key+"[].")
		}
	}
}

func (s *schemaNode) typeText() string {
	switch {
	case s.Format != "":
		return s.Format
	case s.Items != nil && slices.Equal(s.Items.Type, schemaTypes{"string"}):
		return "list of strings"
	case s.Items != nil:
		return "list of rules"
	}
	return strings.Join(s.Type, " or ")
}

func (s *schemaNode) defaultText() string {
	switch value := s.Default.(type) {
	case []any:
		if len(value) > 0 {
			return fmt.Sprintf("`%s`", strings.ReplaceAll(fmt.Sprint(value), " ", ", "))
		}
		return "none"
	case string:
		if value == "" {
			return "none"
		}
	case int:
		if value == 0 && !slices.Contains(s.Type, "number") {
			return "none"
		}
	}
	return fmt.Sprintf("`%v`", s.Default)
}

func (s *schemaNode) boundsText() string {
	switch {
	case s.Shortest != "":
		return fmt.Sprintf(" From %s to %s.", s.Shortest, s.Longest)
	case s.Minimum != nil && (*s.Minimum > 0 || slices.Contains(s.Type, "number")):
		return fmt.Sprintf(" From %d to %d.", *s.Minimum, *s.Maximum)
	case s.Items != nil && len(s.Items.Enum) > 0:
		return fmt.Sprintf(" Any of `%s`.", strings.Join(s.Items.Enum, "`, `"))
	case len(s.Enum) > 0:
		return fmt.Sprintf(" One of `%s`.", strings.Join(s.Enum, "`, `"))
	}
	return ""
}
