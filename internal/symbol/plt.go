//go:build linux

package symbol

import (
	"debug/elf"
	"encoding/binary"
	"strings"
)

// stub finds the function of another library that an entry of the procedure linkage table (.plt, .plt.sec, .plt.got) jumps
// to, such as "malloc@plt": the entry loads an address from a slot, which a relocation fills in with a symbol.
func (o *object) stub(address uint64) (string, bool) {
	for _, section := range o.sections {
		if strings.HasPrefix(section.name, ".plt") && section.flags&elf.SHF_EXECINSTR != 0 &&
			address >= section.address && address-section.address < section.size {
			return o.stubIn(&section, address)
		}
	}
	return "", false
}

// maxStubRelocations is how many bytes of relocations are looked at for one stub.
const maxStubRelocations = 64 << 20

func (o *object) stubIn(section *section, address uint64) (string, bool) {
	// Entries have 16 bytes, but of .plt.got without CET 8 bytes; the first of .plt has 32 bytes on arm64.
	size := uint64(16)
	if section.name == ".plt.got" && o.machine == elf.EM_X86_64 {
		if code := o.memory(section.address).at(0, 4); code != nil && binary.LittleEndian.Uint16(code) == 0x25ff {
			size = 8
		}
	}
	start := address - (address-section.address)%size
	code := o.memory(start).at(0, size)
	if code == nil {
		return "", false
	}
	slot, ok := slotOnX86(code, start)
	if o.machine == elf.EM_AARCH64 {
		slot, ok = slotOnARM64(code, start)
	}
	if !ok {
		return "", false
	}
	looked := uint64(0)
	for index := range o.sections {
		table := &o.sections[index]
		if table.kind != elf.SHT_RELA || table.flags&elf.SHF_ALLOC == 0 || int(table.link) >= len(o.sections) {
			continue
		}
		relocations := o.data(table).sub(0, maxStubRelocations-looked).bytes
		looked += uint64(len(relocations))
		for ; len(relocations) >= relocationBytes; relocations = relocations[relocationBytes:] {
			if binary.LittleEndian.Uint64(relocations) == slot {
				return o.stubName(&o.sections[table.link], binary.LittleEndian.Uint32(relocations[12:]))
			}
		}
	}
	return "", false
}

func (o *object) stubName(symbols *section, index uint32) (string, bool) {
	if index == 0 || int(symbols.link) >= len(o.sections) {
		return "", false
	}
	place, ok := o.data(symbols).uint32(uint64(index) * symbolBytes)
	name, named := o.data(&o.sections[symbols.link]).text(uint64(place))
	return name + "@plt", ok && named && name != ""
}

// slotOnX86 looks for `jmp *slot(%rip)`, which may follow an endbr64 and a bnd prefix.
func slotOnX86(code []byte, start uint64) (uint64, bool) {
	for at := 0; at+6 <= len(code) && at <= 5; at++ {
		if code[at] == 0xff && code[at+1] == 0x25 {
			return start + uint64(at) + 6 + uint64(int64(int32(binary.LittleEndian.Uint32(code[at+2:])))), true
		}
	}
	return 0, false
}

// slotOnARM64 looks for `adrp x16, page; ldr x17, [x16, #offset]`, which may follow a bti.
func slotOnARM64(code []byte, start uint64) (uint64, bool) {
	for at := 0; at+8 <= len(code) && at <= 4; at += 4 {
		page, load := binary.LittleEndian.Uint32(code[at:]), binary.LittleEndian.Uint32(code[at+4:])
		if page&0x9f00001f == 0x90000010 && load&0xffc003ff == 0xf9400211 {
			high := int64(int32(page<<8)) >> 13 << 2 // 19 bits, with their sign
			pages := high | int64(page>>29&3)
			return (start+uint64(at))&^0xfff + uint64(pages<<12) + uint64(load>>10&0xfff)*8, true
		}
	}
	return 0, false
}
