package profileview

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// pageFiles are the parts of the page. They are put into one file as they are: nothing is built.
//
//go:embed page
var pageFiles embed.FS

// scriptParts are in the order in which they need each other.
func scriptParts() []string {
	return []string{"data.js", "calltree.js", "chart.js", "lists.js", "main.js"}
}

// pageHeader is what the page gets as JSON; the numbers follow it, packed.
type pageHeader struct {
	Title     string      `json:"title"`
	Types     []pageType  `json:"types"`
	Default   int         `json:"default"`
	Strings   []string    `json:"strings"`
	Processes []string    `json:"processes"`
	Spans     [][2]string `json:"spans"`
	Start     string      `json:"start,omitempty"`
	Seconds   float64     `json:"seconds,omitempty"`
	Hertz     float64     `json:"hertz,omitempty"`
	Notes     []string    `json:"notes,omitempty"`
}

type pageType struct {
	Name    string `json:"name"`
	Unit    string `json:"unit"`
	Derived bool   `json:"derived,omitempty"`
}

// WritePage writes the profile as one HTML file with a flame graph, which needs nothing else. Notes are shown to the reader,
// such as what is missing.
func (p *Profile) WritePage(output io.Writer, title string, notes []string) error {
	if len(p.order) == 0 {
		return errors.New("make a flame graph: there are no samples")
	}
	style, err := pageFiles.ReadFile("page/style.css")
	if err != nil {
		return fmt.Errorf("make a flame graph: %w", err)
	}
	script, err := pageScript()
	if err != nil {
		return fmt.Errorf("make a flame graph: %w", err)
	}
	skeleton, err := pageFiles.ReadFile("page/index.html")
	if err != nil {
		return fmt.Errorf("make a flame graph: %w", err)
	}
	data, err := p.pageData(title, notes)
	if err != nil {
		return fmt.Errorf("make a flame graph: %w", err)
	}
	// All that comes from outside is in the data, whose alphabet (RFC 4648, section 4) has no character that means anything
	// in HTML, and reaches the page as text only. As a second fence the page's policy lets no other script run, and
	// nothing be fetched.
	page := strings.NewReplacer(
		"{{STYLE}}", string(style),
		"{{SCRIPT}}", string(script),
		"{{SCRIPT_HASH}}", policyHash(script),
		"{{STYLE_HASH}}", policyHash(style),
		"{{DATA}}", data,
	)
	if _, err := page.WriteString(output, string(skeleton)); err != nil {
		return fmt.Errorf("write the flame graph: %w", err)
	}
	return nil
}

// policyHash is how a Content-Security-Policy names a script or a style that may be in the page.
func policyHash(content []byte) string {
	hash := sha256.Sum256(content)
	return base64.StdEncoding.EncodeToString(hash[:])
}

// pageScript is all parts in one function, so that they share nothing with the rest of the browser's window.
func pageScript() ([]byte, error) {
	var script bytes.Buffer
	script.WriteString("\"use strict\";\n(() => {\n")
	for _, name := range scriptParts() {
		part, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			return nil, err
		}
		script.Write(part)
	}
	script.WriteString("})();\n")
	return script.Bytes(), nil
}

// pageData packs the tree: the length of a header in JSON, the header, and numbers of variable length (as protobuf's). It is
// gzip in base64, which browsers can undo by themselves.
func (p *Profile) pageData(title string, notes []string) (string, error) {
	built := p.newTree()
	header := pageHeader{Title: printable(title), Notes: notes, Processes: []string{}}
	types := p.shownTypes()
	typePlace := map[int32]int{}
	for column, place := range types {
		valueType := p.types.entries[place]
		typePlace[place] = column
		if place == p.defaultType() {
			header.Default = column
		}
		header.Types = append(header.Types,
			pageType{Name: printable(valueType.Name), Unit: printable(valueType.Unit), Derived: valueType.Derived})
	}
	if !p.start.IsZero() {
		header.Start = p.start.UTC().Format(time.RFC3339)
		header.Seconds = p.end.Sub(p.start).Seconds()
	}
	if every := p.periods[p.defaultType()]; every.value > 0 && every.valueType.Unit == "nanoseconds" {
		header.Hertz = float64(time.Second) / float64(every.value)
	}

	// Only the texts and resources that the tree uses travel; the rest of the tables stays here.
	var texts, resources, links set[int32]
	texts.add(0)
	links.add(0)
	var numbers []byte
	numbers = pack(numbers, uint64(len(built.frames.entries)))
	for _, frame := range built.frames.entries {
		for _, text := range []int32{frame.name, frame.file, frame.kind, frame.module} {
			numbers = pack(numbers, uint64(texts.add(text)))
		}
		numbers = pack(numbers, uint64(frame.line))
	}
	numbers = pack(numbers, uint64(len(built.nodes)))
	depth := int32(-1)
	for _, node := range built.nodes {
		// How many levels are left before this node is entered: 0 for a child of the one before.
		up := uint64(depth+1-node.depth) << 1
		if node.inlined {
			up |= 1
		}
		numbers = pack(pack(numbers, up), uint64(node.frame))
		depth = node.depth
	}
	numbers = pack(numbers, uint64(len(built.rows)))
	before := int32(0)
	for _, row := range built.rows {
		numbers = pack(numbers, uint64(row.node-before))
		numbers = pack(numbers, uint64(resources.add(row.resource)))
		numbers = pack(numbers, uint64(texts.add(row.thread)))
		numbers = pack(numbers, uint64(links.add(row.link)))
		numbers = pack(numbers, uint64(typePlace[row.valueType]))
		numbers = pack(numbers, uint64(row.value))
		before = row.node
	}
	for _, text := range texts.entries {
		header.Strings = append(header.Strings, printable(p.text(text)))
	}
	for _, resource := range resources.entries {
		header.Processes = append(header.Processes, printable(describeResource(p.unpackLabels(resource))))
	}
	for _, link := range links.entries {
		header.Spans = append(header.Spans, [2]string{p.links.entries[link].TraceID, p.links.entries[link].SpanID})
	}
	encoded, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("encode its header: %w", err)
	}

	var data strings.Builder
	text := base64.NewEncoder(base64.StdEncoding, &data)
	packed := gzip.NewWriter(text)
	for _, part := range [][]byte{pack(nil, uint64(len(encoded))), encoded, numbers} {
		if _, err := packed.Write(part); err != nil {
			return "", fmt.Errorf("compress it: %w", err)
		}
	}
	if err := errors.Join(packed.Close(), text.Close()); err != nil {
		return "", fmt.Errorf("compress it: %w", err)
	}
	return data.String(), nil
}
