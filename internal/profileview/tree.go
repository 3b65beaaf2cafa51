package profileview

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// maximumDepth is how many frames of a stack the page shows, from its root. What lies deeper is told by one frame.
const maximumDepth = 2048

// Kinds of frames that no file has.
const (
	kindProcess   = "process"   // the first level: whose stacks these are
	kindTruncated = "truncated" // beyond maximumDepth
)

// frame is what the page draws as one: a function, wherever in it the samples lie. Its texts are places of strings.
type frame struct {
	name, file, kind, module int32
	line                     int64 // where the function starts, 0 when that is not known
}

// tree holds the stacks from their roots, with what they share once.
type tree struct {
	frames set[frame]
	nodes  []node
	rows   []row
}

type node struct {
	frame, parent int32
	depth         int32
	inlined       bool // everywhere it was seen
}

// row is the value of the samples that are equal in all that the page can filter by.
type row struct {
	rowKey
	value int64
}

type rowKey struct{ node, resource, thread, link, valueType int32 }

type treeBuilder struct {
	*Profile
	tree      tree
	children  map[[2]int32]int32 // parent and frame
	expanded  map[int32][]expandedFrame
	processes map[int32]int32 // frame of a resource
	threads   map[int32]int32 // text of a set of labels
}

type expandedFrame struct {
	frame   int32
	inlined bool
}

// newTree makes the tree of all samples. Nodes are in the order in which they are drawn: a parent, then its children by
// name.
func (p *Profile) newTree() tree {
	builder := treeBuilder{
		Profile:  p,
		children: map[[2]int32]int32{}, expanded: map[int32][]expandedFrame{},
		processes: map[int32]int32{}, threads: map[int32]int32{},
	}
	builder.tree.nodes = []node{{frame: builder.frameOf("all", "root"), parent: -1}}
	shown := map[int32]bool{}
	for _, place := range p.shownTypes() {
		shown[place] = true
	}
	type branch struct{ stack, process int32 }
	leaves := map[branch]int32{} // samples of one stack differ in much else
	rows := map[rowKey]int{}
	for _, sample := range p.order {
		if !shown[sample.valueType] || sample.value == 0 {
			continue
		}
		process := builder.process(sample.resource)
		leaf, known := leaves[branch{sample.stack, process}]
		if !known {
			leaf = builder.grow(sample.stack, process)
			leaves[branch{sample.stack, process}] = leaf
		}
		key := rowKey{
			node: leaf, resource: sample.resource, thread: builder.thread(sample.labels),
			link: sample.link, valueType: sample.valueType,
		}
		place, known := rows[key]
		if !known {
			place = len(builder.tree.rows)
			rows[key] = place
			builder.tree.rows = append(builder.tree.rows, row{rowKey: key})
		}
		builder.tree.rows[place].value = addSaturating(builder.tree.rows[place].value, sample.value)
	}
	builder.sort()
	return builder.tree
}

func (b *treeBuilder) frameOf(name, kind string) int32 {
	return b.tree.frames.add(frame{name: b.strings.add(name), kind: b.strings.add(kind)})
}

// grow adds a stack below its process and returns the node of its leaf.
func (b *treeBuilder) grow(stack, process int32) int32 {
	at := b.child(0, expandedFrame{frame: process})
	locations := unpack(b.stacks.entries[stack])
	for _, place := range slices.Backward(locations) {
		for _, expanded := range b.expand(int32(place)) {
			if b.tree.nodes[at].depth == maximumDepth {
				return b.child(at, expandedFrame{frame: b.frameOf("[deeper frames left out]", kindTruncated)})
			}
			at = b.child(at, expanded)
		}
	}
	return at
}

func (b *treeBuilder) child(parent int32, expanded expandedFrame) int32 {
	key := [2]int32{parent, expanded.frame}
	if known, exists := b.children[key]; exists {
		b.tree.nodes[known].inlined = b.tree.nodes[known].inlined && expanded.inlined
		return known
	}
	added := int32(len(b.tree.nodes))
	b.children[key] = added
	b.tree.nodes = append(b.tree.nodes, node{
		frame: expanded.frame, parent: parent, depth: b.tree.nodes[parent].depth + 1, inlined: expanded.inlined,
	})
	return added
}

// expand makes a location's frames, the outermost first. All but the outermost were inlined into it.
func (b *treeBuilder) expand(place int32) []expandedFrame {
	if known, exists := b.expanded[place]; exists {
		return known
	}
	from := b.locations.entries[place]
	module := b.mappings.entries[from.mapping].file
	var expanded []expandedFrame
	lines := b.unpackLines(from.lines)
	if len(lines) > maximumDepth {
		lines = lines[len(lines)-maximumDepth:]
	}
	for i, line := range slices.Backward(lines) {
		function := b.functions.entries[line.function]
		name := function.name
		if name == 0 {
			name = function.systemName
		}
		if name == 0 {
			name = b.strings.add(b.unnamed(from))
		}
		expanded = append(expanded, expandedFrame{
			frame: b.tree.frames.add(
				frame{name: name, file: function.file, kind: from.kind, module: module, line: function.startLine},
			),
			inlined: i < len(lines)-1,
		})
	}
	if len(expanded) == 0 {
		name := b.strings.add(b.unnamed(from))
		expanded = append(expanded, expandedFrame{frame: b.tree.frames.add(frame{name: name, kind: from.kind, module: module})})
	}
	b.expanded[place] = expanded
	return expanded
}

// unnamed says where code without a symbol lies: the file and the offset in it, which a person can look up.
func (b *treeBuilder) unnamed(from location) string {
	mapped := b.mappings.entries[from.mapping]
	file := path.Base(b.text(mapped.file))
	switch {
	case mapped.file == 0 && from.address == 0:
		return "[unknown]"
	case mapped.file == 0:
		return fmt.Sprintf("[0x%x]", from.address)
	case from.address >= mapped.start && from.address < mapped.limit:
		return fmt.Sprintf("[%s+0x%x]", file, from.address-mapped.start+mapped.offset)
	default: // an address that its mapping does not have: told as it is
		return fmt.Sprintf("[%s 0x%x]", file, from.address)
	}
}

// process is the frame that a resource's stacks stand on. Processes of one program share it: filters tell them apart.
func (b *treeBuilder) process(resource int32) int32 {
	if known, exists := b.processes[resource]; exists {
		return known
	}
	made := b.frameOf(processName(b.unpackLabels(resource)), kindProcess)
	b.processes[resource] = made
	return made
}

// processName is the service's name and the executable's where they differ, or what else is known.
func processName(labels []Label) string {
	service, executable := find(labels, string(semconv.ServiceNameKey)), find(labels, string(semconv.ProcessExecutableNameKey))
	switch {
	case service != "" && executable != "" && service != executable:
		return service + " (" + executable + ")"
	case service != "":
		return service
	case executable != "":
		return executable
	default:
		if pid := find(labels, string(semconv.ProcessPIDKey)); pid != "" {
			return "process " + pid
		}
		return "[unknown process]"
	}
}

// describeResource is a resource's line in the list of processes.
func describeResource(labels []Label) string {
	described := processName(labels)
	if pid := find(labels, string(semconv.ProcessPIDKey)); pid != "" && described != "process "+pid {
		described += ", pid " + pid
	}
	if container := find(labels, string(semconv.ContainerIDKey)); container != "" {
		described += ", container " + container[:min(len(container), containerIDDigits)]
	}
	return described
}

func find(labels []Label, key string) string {
	for _, label := range labels {
		if label.Key == key {
			return label.Value
		}
	}
	return ""
}

func (b *treeBuilder) thread(labels int32) int32 {
	if known, exists := b.threads[labels]; exists {
		return known
	}
	unpacked := b.unpackLabels(labels)
	name := find(unpacked, string(semconv.ThreadNameKey))
	if id := find(unpacked, string(semconv.ThreadIDKey)); name == "" && id != "" {
		name = "thread " + id
	}
	made := b.strings.add(name)
	b.threads[labels] = made
	return made
}

// sort brings the nodes into the order of drawing, and the rows into that of the nodes.
func (b *treeBuilder) sort() {
	nodes := b.tree.nodes
	children := make([][]int32, len(nodes))
	for place := 1; place < len(nodes); place++ {
		parent := nodes[place].parent
		children[parent] = append(children[parent], int32(place))
	}
	rank := b.ranks()
	sorted := make([]node, 0, len(nodes))
	moved := make([]int32, len(nodes))
	waiting := []int32{0}
	for len(waiting) > 0 {
		place := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		moved[place] = int32(len(sorted))
		taken := nodes[place]
		if taken.parent >= 0 {
			taken.parent = moved[taken.parent]
		}
		sorted = append(sorted, taken)
		below := children[place]
		slices.SortFunc(
			below,
			func(left, right int32) int { return cmp.Compare(rank[nodes[right].frame], rank[nodes[left].frame]) },
		)
		waiting = append(waiting, below...) // the last is taken first
	}
	b.tree.nodes = sorted
	for place := range b.tree.rows {
		b.tree.rows[place].node = moved[b.tree.rows[place].node]
	}
	slices.SortStableFunc(b.tree.rows, func(left, right row) int { return cmp.Compare(left.node, right.node) })
}

// ranks are the places of the frames when sorted by name, and by the rest where names are equal.
func (b *treeBuilder) ranks() []int32 {
	order := make([]int32, len(b.tree.frames.entries))
	for place := range order {
		order[place] = int32(place)
	}
	slices.SortFunc(order, func(left, right int32) int {
		one, other := b.tree.frames.entries[left], b.tree.frames.entries[right]
		return cmp.Or(
			strings.Compare(b.text(one.name), b.text(other.name)),
			strings.Compare(b.text(one.module), b.text(other.module)),
			strings.Compare(b.text(one.file), b.text(other.file)),
			cmp.Compare(left, right),
		)
	})
	ranks := make([]int32, len(order))
	for rank, place := range order {
		ranks[place] = int32(rank)
	}
	return ranks
}

// printable replaces characters that would hide or reorder the text around them, which a name may not do to the page.
func printable(text string) string {
	return strings.Map(func(character rune) rune {
		if unicode.IsControl(character) || unicode.Is(unicode.Cf, character) {
			return unicode.ReplacementChar
		}
		return character
	}, text)
}
