package profile

// texts is how many bytes the texts of a message have. What was counted once is not looked at again.
type texts struct {
	bytes      int
	strings    int // rows counted
	attributes int
}

func (t *texts) count(d *dictionary) {
	for ; t.strings < len(d.strings.rows); t.strings++ {
		t.bytes += len(d.strings.rows[t.strings])
	}
	for ; t.attributes < len(d.attributes.rows); t.attributes++ {
		t.bytes += len(d.attributes.rows[t.attributes].text)
	}
}

// Size is about how many bytes the message takes as protobuf, before compression: what a receiver's limit (4 MiB by default,
// in gRPC) is compared with. It is cheap enough to ask for after each sample, and more often too high than too low. What
// resources take is not known before Build: 500 bytes each are assumed.
func (b *Builder[Key]) Size() int {
	d := &b.dictionary
	b.texts.count(d)
	// Per row: tag and length, then a tag and a number of usual size for each field.
	return b.texts.bytes +
		4*len(d.strings.rows) + 14*len(d.functions.rows) + 34*len(d.mappings.rows) + 20*len(d.locations.rows) +
		11*d.lineCount() + 30*len(d.links.rows) + 14*len(d.attributes.rows) +
		5*len(d.stacks.lists) + 2*len(d.stacks.elements) +
		18*len(b.samples) + 11*len(b.occurrences) +
		70*len(b.profiles) + 500*len(b.resources)
}

// lineCount is about how many lines the locations have: a list of them may be at several.
func (d *dictionary) lineCount() int { return max(len(d.lines.elements), len(d.locations.rows)) }
