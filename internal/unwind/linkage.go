//go:build linux

package unwind

import "debug/elf"

// linkages are the fillers for procedure linkage tables that are not described: GNU ld describes those of amd64, but not of
// static programs; LLD describes none, and no linker describes those of arm64. Their entries only jump: where they were
// called from is where the call left it.
func (i *image) linkages() []filler {
	if i.machine.linkRegister {
		// The first 32 bytes look a function up; the return address is on the stack then.
		row := Row{Rule: RuleStack | ReturnLink, FramePointer: FramePointerKept}
		return i.sectionFillers(row, 32, ".plt")
	}
	const lookupBytes = 16
	// The lookup is reached by a push and a jump at the end of each entry, which the first entry is for; static programs
	// have no lookup, and no first entry. Where branches are tracked (IBT), the push is the second instruction of an entry.
	lazy := Row{Rule: RulePLT, Offset: 11, FramePointer: FramePointerKept}
	skip := uint64(0)
	if i.file.Section(".dynamic") != nil {
		skip = lookupBytes
	}
	if i.file.Section(".plt.sec") != nil {
		lazy.Offset = 9
	}
	row := Row{Rule: RuleStack, Offset: 1, FramePointer: FramePointerKept}
	return append(i.sectionFillers(lazy, skip, ".plt"), i.sectionFillers(row, 0, ".plt.sec", ".plt.got", ".iplt")...)
}

// sectionFillers say the same of all code in sections, but for their first bytes.
func (i *image) sectionFillers(row Row, skip uint64, names ...string) (fillers []filler) {
	for _, name := range names {
		section := i.file.Section(name)
		if section == nil || section.Flags&elf.SHF_EXECINSTR == 0 || section.Size <= skip ||
			!i.within(section.Addr, section.Size) {
			continue
		}
		start := uint32(section.Addr - i.base)
		fillers = append(fillers, filler{start: start + uint32(skip), end: start + uint32(section.Size), row: row})
	}
	return fillers
}
