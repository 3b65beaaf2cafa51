//go:build linux

package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const kept = FramePointerKept

// row makes one for a place in the function at testCode.
func row(at uint32, rule Rule, offset int16, framePointer int8) Row {
	return Row{Address: at, Rule: rule, Offset: offset, FramePointer: framePointer}
}

// Every call frame instruction, in an FDE of 64 bytes whose CIE says CFA = rsp+8, rip at CFA-8.
func TestInstructionsOfAMD64(t *testing.T) {
	end := row(64, RuleNone, 0, kept)
	first := row(0, RuleStack, 1, kept)
	for name, test := range map[string]struct {
		instructions []byte
		want         []Row
	}{
		"none":         {nil, []Row{first}},
		"nop":          {[]byte{0, 0, 0}, []Row{first}},
		"advance_loc":  {[]byte{0x41, 0x0e, 16}, []Row{first, row(1, RuleStack, 2, kept)}},
		"advance_loc1": {[]byte{0x02, 9, 0x0e, 16}, []Row{first, row(9, RuleStack, 2, kept)}},
		"advance_loc2": {[]byte{0x03, 10, 0, 0x0e, 16}, []Row{first, row(10, RuleStack, 2, kept)}},
		"advance_loc4": {[]byte{0x04, 11, 0, 0, 0, 0x0e, 16}, []Row{first, row(11, RuleStack, 2, kept)}},
		"MIPS_advance_loc8": {
			[]byte{0x1d, 12, 0, 0, 0, 0, 0, 0, 0, 0x0e, 16}, []Row{first, row(12, RuleStack, 2, kept)},
		},
		"advance by nothing":           {[]byte{0x40, 0x0e, 16}, []Row{row(0, RuleStack, 2, kept)}},
		"equal neighbours":             {[]byte{0x41, 0x83, 2, 0x41, 0x0e, 16}, []Row{first, row(2, RuleStack, 2, kept)}},
		"behind the end":               {[]byte{0x02, 64, 0x0e, 16}, []Row{first}},
		"def_cfa":                      {[]byte{0x0c, 6, 16}, []Row{row(0, RuleFrame, 2, kept)}},
		"def_cfa_sf":                   {[]byte{0x12, 6, 0x7e}, []Row{row(0, RuleFrame, 2, kept)}},
		"def_cfa_register":             {[]byte{0x0d, 6}, []Row{row(0, RuleFrame, 1, kept)}},
		"another register":             {[]byte{0x0c, 10, 0}, []Row{row(0, RuleRegister|10, 0, kept)}},
		"no register":                  {[]byte{0x0c, 17, 0}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"def_cfa_offset":               {[]byte{0x0e, 0x80, 0x80, 0x01}, []Row{row(0, RuleStack, 2048, kept)}},
		"def_cfa_offset_sf":            {[]byte{0x13, 0x7d}, []Row{row(0, RuleStack, 3, kept)}},
		"not in words":                 {[]byte{0x0e, 12}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"too far":                      {[]byte{0x0e, 0x80, 0x80, 0x10}, []Row{row(0, RuleUnsupported, 0, kept)}}, // 32768 words
		"as far as possible":           {[]byte{0x0e, 0xf8, 0xff, 0x0f}, []Row{row(0, RuleStack, 32767, kept)}},
		"offset":                       {[]byte{0x86, 2}, []Row{row(0, RuleStack, 1, -2)}},
		"offset_extended":              {[]byte{0x05, 6, 3}, []Row{row(0, RuleStack, 1, -3)}},
		"offset_extended_sf":           {[]byte{0x11, 6, 0x7d}, []Row{row(0, RuleStack, 1, 3)}},
		"GNU_negative_offset_extended": {[]byte{0x2f, 6, 3}, []Row{row(0, RuleStack, 1, 3)}},
		"offset too far":               {[]byte{0x86, 0x80, 1}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"offset as far as possible":    {[]byte{0x86, 126}, []Row{row(0, RuleStack, 1, -126)}},
		"offset of a register that does not matter": {[]byte{0x83, 2}, []Row{first}},
		"restore":          {[]byte{0x86, 2, 0x41, 0xc6}, []Row{row(0, RuleStack, 1, -2), row(1, RuleStack, 1, kept)}},
		"restore_extended": {[]byte{0x86, 2, 0x41, 0x06, 6}, []Row{row(0, RuleStack, 1, -2), row(1, RuleStack, 1, kept)}},
		"restore the return address": {
			[]byte{0x07, 16, 0x41, 0x06, 16}, []Row{row(0, RuleEnd, 0, kept), row(1, RuleStack, 1, kept)},
		},
		"undefined":                {[]byte{0x07, 16}, []Row{row(0, RuleEnd, 0, kept)}},
		"undefined, other":         {[]byte{0x07, 3}, []Row{first}},
		"undefined, frame pointer": {[]byte{0x07, 6}, []Row{first}},
		"same_value":               {[]byte{0x86, 2, 0x08, 6}, []Row{first}},
		"register":                 {[]byte{0x09, 16, 1}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"register, other":          {[]byte{0x09, 3, 1}, []Row{first}},
		"remember_state, restore_state": {
			[]byte{0x0a, 0x0e, 16, 0x86, 2, 0x41, 0x0b, 0x42, 0x0e, 24},
			[]Row{row(0, RuleStack, 2, -2), row(1, RuleStack, 1, kept), row(3, RuleStack, 3, kept)},
		},
		"val_offset":               {[]byte{0x14, 6, 2}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"val_offset_sf":            {[]byte{0x15, 6, 2}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"val_offset, other":        {[]byte{0x14, 3, 2}, []Row{first}},
		"val_offset, stack, CFA":   {[]byte{0x14, 7, 0}, []Row{first}},
		"val_offset, stack, other": {[]byte{0x14, 7, 1}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"val_expression":           {[]byte{0x16, 6, 2, 0x77, 0}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"val_expression, other":    {[]byte{0x16, 3, 2, 0x77, 0}, []Row{first}},
		"expression":               {[]byte{0x10, 6, 2, 0x77, 0}, []Row{row(0, RuleStack, 1, -1)}},
		"expression, unknown":      {[]byte{0x10, 6, 1, 0x96}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"GNU_args_size":            {[]byte{0x2e, 32}, []Row{first}},
		"return address elsewhere": {[]byte{0x90, 2}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"def_cfa_expression: a register": {
			[]byte{0x0f, 3, 0x76, 0x90, 0x01}, []Row{row(0, RuleFrame, 18, kept)},
		},
		"def_cfa_expression: realigned stack": {
			[]byte{0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0}, []Row{row(0, RuleFrameDeref, -1, FramePointerAtItself)},
		},
		"def_cfa_expression: saved stack pointer": {[]byte{0x0f, 3, 0x77, 0x28, 0x06}, []Row{row(0, RuleStackDeref, 5, kept)}},
		"def_cfa_expression: plus_uconst": {
			[]byte{0x0f, 5, 0x77, 0x28, 0x06, 0x23, 8}, []Row{row(0, RuleStackDerefWord, 5, kept)},
		},
		"def_cfa_expression: lit8, plus": {
			[]byte{0x0f, 5, 0x76, 0x28, 0x06, 0x38, 0x22}, []Row{row(0, RuleFrameDerefWord, 5, kept)},
		},
		"def_cfa_expression: const1u, plus": {
			[]byte{0x0f, 6, 0x76, 0x28, 0x06, 8, 8, 0x22}, []Row{row(0, RuleFrameDerefWord, 5, kept)},
		},
		"def_cfa_expression: more is added": {
			[]byte{0x0f, 5, 0x77, 0x28, 0x06, 0x23, 16}, []Row{row(0, RuleUnsupported, 0, kept)},
		},
		"def_cfa_expression: twice":          {[]byte{0x0f, 4, 0x77, 0x28, 0x06, 0x06}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"def_cfa_expression: other register": {[]byte{0x0f, 3, 0x70, 0x28, 0x06}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"def_cfa_expression: empty":          {[]byte{0x0f, 0}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"def_cfa_expression: PLT": {
			[]byte{0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, []Row{row(0, RulePLT, 11, kept)},
		},
		"def_cfa_expression: PLT with IBT": {
			[]byte{0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x39, 0x2a, 0x33, 0x24, 0x22}, []Row{row(0, RulePLT, 9, kept)},
		},
		"a CFA after an expression": {
			[]byte{0x0f, 3, 0x76, 0x78, 0x06, 0x41, 0x0c, 7, 8}, []Row{row(0, RuleFrameDeref, -1, kept), row(1, RuleStack, 1, kept)},
		},
	} {
		for _, debug := range []bool{false, true} {
			written := frames{debug: debug}
			written.function(written.amd64Common(), testCode, 64, test.instructions...)
			table, counts, err := tableOf(elf.EM_X86_64, written.section())
			require.NoError(t, err, name)
			assert.Equal(t, append(test.want, end), table.Rows, "%s (debug: %v)", name, debug)
			assert.Zero(t, counts.Malformed, name)
			unsupported := 0
			for _, row := range test.want {
				if row.Rule == RuleUnsupported {
					unsupported++
				}
			}
			assert.Equal(t, Counts{Functions: 1, Unsupported: unsupported}, counts, name)
		}
	}
}

// On arm64 the CIE says only that the CFA is sp.
func TestInstructionsOfARM64(t *testing.T) {
	for name, test := range map[string]struct {
		instructions []byte
		want         []Row
	}{
		"leaf": {nil, []Row{row(0, RuleStack|ReturnLink, 0, kept)}},
		"frame record": {
			[]byte{0x44, 0x0e, 32, 0x9d, 4, 0x9e, 3, 0x44, 0x0c, 29, 32},
			[]Row{
				row(0, RuleStack|ReturnLink, 0, kept), row(4, RuleStack|ReturnBeside, 4, -4),
				row(8, RuleFrame|ReturnBeside, 4, -4),
			},
		},
		"only the return address":  {[]byte{0x0e, 16, 0x9e, 2}, []Row{row(0, RuleStack|ReturnAlone, 2, -2)}},
		"only the frame pointer":   {[]byte{0x0e, 16, 0x9d, 2}, []Row{row(0, RuleStack|ReturnLink, 2, -2)}},
		"apart":                    {[]byte{0x0e, 32, 0x9d, 4, 0x9e, 2}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"AARCH64_negate_ra_state":  {[]byte{0x2d, 0x44, 0x2d}, []Row{row(0, RuleStack|ReturnLink, 0, kept)}},
		"negate_ra_state_with_pc":  {[]byte{0x2c}, []Row{row(0, RuleStack|ReturnLink, 0, kept)}},
		"undefined":                {[]byte{0x07, 30}, []Row{row(0, RuleEnd, 0, kept)}},
		"same_value":               {[]byte{0x9e, 2, 0x08, 30}, []Row{row(0, RuleStack|ReturnLink, 0, kept)}},
		"CFA in another register":  {[]byte{0x0c, 9, 16}, []Row{row(0, RuleRegister|ReturnLink|9, 2, kept)}},
		"return address elsewhere": {[]byte{0x09, 30, 17}, []Row{row(0, RuleUnsupported, 0, kept)}},
		"registers of vectors":     {[]byte{0x05, 72, 2}, []Row{row(0, RuleStack|ReturnLink, 0, kept)}},
	} {
		var written frames
		for _, augmentation := range []string{"zR", "zRB", "zRG"} {
			written = frames{}
			written.function(written.common(1, augmentation, []byte{0x1b}, 30, 0x0c, 31, 0), testCode, 64, test.instructions...)
			table, counts, err := tableOf(elf.EM_AARCH64, written.section())
			require.NoError(t, err, name)
			assert.Equal(t, append(test.want, row(64, RuleNone, 0, kept)), table.Rows, name)
			assert.Zero(t, counts.Malformed, name)
		}
	}
	// The one instruction that has another meaning on amd64, or none.
	var written frames
	written.function(written.amd64Common(), testCode, 64, 0x2d)
	table, counts, err := tableOf(elf.EM_X86_64, written.section())
	require.NoError(t, err)
	assert.Empty(t, table.Rows)
	assert.Equal(t, 1, counts.Malformed)
}

func TestSetLocation(t *testing.T) {
	written := frames{debug: true}
	target := binary.LittleEndian.AppendUint64([]byte{0x01}, testCode+20)
	written.function(written.amd64Common(), testCode, 64, append(target, 0x0e, 16)...)
	back := binary.LittleEndian.AppendUint64([]byte{0x44, 0x01}, testCode+64)
	written.function(0, testCode+64, 64, back...)
	table, counts, err := tableOf(elf.EM_X86_64, written.section())
	require.NoError(t, err)
	assert.Equal(t, []Row{row(0, RuleStack, 1, kept), row(20, RuleStack, 2, kept), row(64, RuleNone, 0, kept)}, table.Rows)
	assert.Equal(t, 1, counts.Malformed, "the second function goes backwards")
}

// glibc's __restore_rt, whose FDE begins one byte early so that the return address less one is in it.
func TestSignalFrames(t *testing.T) {
	at := func(register, offset byte) []byte {
		return []byte{0x10, register, 3, 0x77, 0x80 | offset&0x7f, offset >> 7}
	}
	rules := bytes.Join([][]byte{
		{0x0f, 4, 0x77, 0xa0, 1, 0x06}, at(6, 120), at(7, 160), at(16, 168),
	}, nil)
	var written frames
	signal := written.common(1, "zRS", []byte{0x1b}, 16)
	written.function(signal, testCode+15, 10, rules...)
	rules[len(rules)-2] = 0xa9 // The instruction pointer is elsewhere.
	written.function(signal, testCode+100, 10, rules...)
	table, _, err := tableOf(elf.EM_X86_64, written.section())
	require.NoError(t, err)
	assert.Equal(t, []Row{
		row(15, RuleSignal, 0, kept), row(25, RuleNone, 0, kept), row(100, RuleUnsupported, 0, kept), row(110, RuleNone, 0, kept),
	}, table.Rows)

	written = frames{}
	written.function(written.common(1, "zRS", []byte{0x1b}, 30, 0x0c, 29, 0), testCode+4, 8)
	table, _, err = tableOf(elf.EM_AARCH64, written.section())
	require.NoError(t, err)
	assert.Equal(t, RuleSignal, table.Rows[0].Rule)
}

func TestCommonEntries(t *testing.T) {
	instructions := []byte{0x0c, 7, 8, 0x90, 1}
	absolute := binary.LittleEndian.AppendUint64(nil, testCode)
	for name, test := range map[string]struct {
		version      byte
		augmentation string
		data         []byte
		column       byte
		want         Rule
		malformed    int
	}{
		"version 1":                    {version: 1, augmentation: "zR", data: []byte{0x1b}, column: 16, want: RuleStack},
		"version 3":                    {version: 3, augmentation: "zR", data: []byte{0x1b}, column: 16, want: RuleStack},
		"version 4":                    {version: 4, augmentation: "zR", data: []byte{0x1b}, column: 16, want: RuleStack},
		"version 2":                    {version: 2, augmentation: "zR", data: []byte{0x1b}, column: 16, malformed: 1},
		"version 5":                    {version: 5, augmentation: "zR", data: []byte{0x1b}, column: 16, malformed: 1},
		"personality and language":     {1, "zPLR", append(append([]byte{0x00}, absolute...), 0x1b, 0x1b), 16, RuleStack, 0},
		"personality, relative":        {1, "zPLR", []byte{0x9b, 1, 2, 3, 4, 0x1b, 0x1b}, 16, RuleStack, 0},
		"personality, omitted":         {1, "zPR", []byte{0xff, 0x1b}, 16, RuleStack, 0},
		"unknown letter behind R":      {1, "zRX", []byte{0x1b, 7}, 16, RuleStack, 0},
		"unknown letter before R":      {1, "zXR", []byte{7, 0x1b}, 16, RuleNone, 1},
		"no length":                    {1, "R", nil, 16, RuleNone, 1},
		"another return address":       {1, "zR", []byte{0x1b}, 17, RuleUnsupported, 0},
		"less data than letters":       {1, "zPLR", []byte{0x1b}, 16, RuleNone, 1},
		"pointers of functions: gone":  {1, "zR", []byte{0xff}, 16, RuleNone, 1},
		"pointers of functions: GOT":   {1, "zR", []byte{0x3b}, 16, RuleNone, 1},
		"pointers of functions: by it": {1, "zR", []byte{0x9b}, 16, RuleNone, 1},
	} {
		var written frames
		written.function(written.common(test.version, test.augmentation, test.data, test.column, instructions...), testCode, 64)
		table, counts, err := tableOf(elf.EM_X86_64, written.section())
		require.NoError(t, err, name)
		assert.Equal(t, test.want, table.Lookup(testCode).Rule, name)
		assert.Equal(t, test.malformed, counts.Malformed, name)
	}
}

func TestPointers(t *testing.T) {
	const address = 0x1000
	for name, test := range map[string]struct {
		encoding uint8
		data     []byte
		want     uint64
		failed   bool
	}{
		"absptr":   {0x00, []byte{1, 2, 3, 4, 5, 6, 7, 8}, 0x0807060504030201, false},
		"uleb128":  {0x01, []byte{0x81, 0x01}, 0x81, false},
		"udata2":   {0x02, []byte{0xff, 0xff}, 0xffff, false},
		"udata4":   {0x03, []byte{0xff, 0xff, 0xff, 0xff}, 0xffffffff, false},
		"udata8":   {0x04, []byte{1, 0, 0, 0, 0, 0, 0, 0}, 1, false},
		"sleb128":  {0x19, []byte{0x7f}, address - 1, false},
		"sdata2":   {0x1a, []byte{0xfe, 0xff}, address - 2, false},
		"sdata4":   {0x1b, []byte{0xfc, 0xff, 0xff, 0xff}, address - 4, false},
		"sdata8":   {0x1c, []byte{8, 0, 0, 0, 0, 0, 0, 0}, address + 8, false},
		"omitted":  {0xff, []byte{1, 2, 3, 4, 5, 6, 7, 8}, 0, true},
		"textrel":  {0x2b, []byte{1, 2, 3, 4}, 0, true},
		"unknown":  {0x0d, []byte{1, 2, 3, 4}, 0, true},
		"too few":  {0x1b, []byte{1, 2, 3}, 0, true},
		"unending": {0x01, bytes.Repeat([]byte{0x80}, 30), 0, true},
		"too wide": {0x01, append(bytes.Repeat([]byte{0xff}, 9), 2), 0, true},
	} {
		c := cursor{data: test.data}
		value := c.pointer(test.encoding, address)
		assert.Equal(t, test.failed, c.failed, name)
		if !test.failed {
			assert.Equal(t, test.want, value, name)
		}
	}
	for value, data := range map[int64][]byte{
		2: {2}, -2: {0x7e}, 127: {0xff, 0}, -127: {0x81, 0x7f}, 128: {0x80, 1}, -129: {0xff, 0x7e},
		-1 << 63:  {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f},
		1<<63 - 1: {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00},
	} {
		c := cursor{data: data}
		assert.Equal(t, value, c.signed())
		assert.False(t, c.failed, value)
	}
}

func TestGapsBetweenFunctions(t *testing.T) {
	var written frames
	common := written.amd64Common()
	written.function(common, testCode+100, 20, 0x41, 0x0e, 16)
	written.function(common, testCode, 10) // out of order
	written.function(common, testCode+16, 10, 0x0e, 32)
	written.function(common, testCode+42, 10, 0x0e, 32)
	written.function(common, testCode+42, 20, 0x0e, 64) // the same place again
	written.function(common, testCode+110, 20)          // overlaps the end of the first
	written.function(common, 0, 10)                     // of a section that the linker dropped
	written.function(common, testCode+codeBytes-4, 8)   // leaves the segment
	written.function(common, testCode+200, 0)
	table, counts, err := tableOf(elf.EM_X86_64, written.section())
	require.NoError(t, err)
	assert.Equal(t, []Row{
		row(0, RuleStack, 1, kept), // also for the padding from 10 on
		row(16, RuleStack, 4, kept),
		row(26, RuleNone, 0, kept), // 16 bytes are no padding
		row(42, RuleStack, 4, kept),
		row(52, RuleNone, 0, kept),
		row(100, RuleStack, 1, kept),
		row(101, RuleStack, 2, kept),
		row(110, RuleStack, 1, kept),
		row(130, RuleNone, 0, kept),
	}, table.Rows)
	assert.Equal(t, Counts{Functions: 9, Outside: 3, Overlapping: 2}, counts)

	for address, want := range map[uint64]Rule{
		0: RuleNone, testCode - 1: RuleNone, testCode: RuleStack, testCode + 15: RuleStack, testCode + 26: RuleNone,
		testCode + 41: RuleNone, testCode + 42: RuleStack, testCode + 130: RuleNone, 1 << 40: RuleNone,
	} {
		assert.Equal(t, want, table.Lookup(address).Rule, "%#x", address)
	}
}

func TestDebugFrameCompletesEHFrame(t *testing.T) {
	var better frames
	common := better.amd64Common()
	better.function(common, testCode+100, 20, 0x0e, 32)
	other := frames{debug: true}
	common = other.amd64Common()
	other.function(common, testCode, 50)
	other.function(common, testCode+90, 11)
	other.function(common, testCode+100, 20)
	other.function(common, testCode+119, 20)
	other.function(common, testCode+120, 20)
	table, _, err := tableOf(elf.EM_X86_64, better.section(), other.section())
	require.NoError(t, err)
	assert.Equal(t, []Row{
		row(0, RuleStack, 1, kept), row(50, RuleNone, 0, kept), row(100, RuleStack, 4, kept), row(120, RuleStack, 1, kept),
		row(140, RuleNone, 0, kept),
	}, table.Rows)
}

// A record that is malformed does not spoil those around it.
func TestMalformedRecordsAreLeftOut(t *testing.T) {
	for name, instructions := range map[string][]byte{
		"unknown instruction":   {0x3f},
		"ends in the middle":    {0x0f, 200},
		"restores nothing":      {0x0b},
		"remembers too much":    bytes.Repeat([]byte{0x0a}, maxRememberedStates+1),
		"an offset of nothing":  {0x0f, 3, 0x77, 0x28, 0x06, 0x0e, 8},
		"advances out of range": append([]byte{0x1d}, bytes.Repeat([]byte{0xff}, 8)...),
	} {
		var written frames
		common := written.amd64Common()
		written.function(common, testCode, 32)
		written.function(common, testCode+100, 32, append([]byte{0x41, 0x0e, 16}, instructions...)...)
		written.function(common, testCode+200, 32)
		written.function(written.data.Len(), testCode+300, 32) // its CIE is itself
		table, counts, err := tableOf(elf.EM_X86_64, written.section())
		require.NoError(t, err, name)
		assert.Equal(t, 2, counts.Malformed, name)
		assert.Equal(t, RuleStack, table.Lookup(testCode).Rule, name)
		assert.Equal(t, RuleNone, table.Lookup(testCode+100).Rule, name)
		assert.Equal(t, RuleNone, table.Lookup(testCode+101).Rule, name)
		assert.Equal(t, RuleStack, table.Lookup(testCode+200).Rule, name)
	}
}

func TestSectionsThatEndEarly(t *testing.T) {
	var written frames
	common := written.amd64Common()
	written.function(common, testCode, 32)
	whole := written.data.Len()
	written.function(common, testCode+100, 32)
	for length := whole + 4; length < written.data.Len(); length++ {
		section := written.section()
		section.size = int64(length)
		table, counts, err := tableOf(elf.EM_X86_64, section)
		require.NoError(t, err)
		assert.Equal(t, 1, counts.Truncated, length)
		assert.Equal(t, RuleStack, table.Lookup(testCode).Rule, length)
		assert.Equal(t, RuleNone, table.Lookup(testCode+100).Rule, length)
	}
	// Records of length zero are between those of different object files; many of them are no section at all.
	written.data.Write(make([]byte, 4*maxTerminators))
	written.function(common, testCode+200, 32)
	written.data.Write(make([]byte, 4*(maxTerminators+1)))
	written.function(common, testCode+300, 32)
	table, _, err := tableOf(elf.EM_X86_64, written.section())
	require.NoError(t, err)
	assert.Equal(t, RuleStack, table.Lookup(testCode+200).Rule)
	assert.Equal(t, RuleNone, table.Lookup(testCode+300).Rule)
}

// The 64-bit format: the length takes 12 bytes.
func TestWideRecords(t *testing.T) {
	for _, debug := range []bool{false, true} {
		narrow := frames{debug: debug}
		narrow.amd64Common()
		content := narrow.data.Bytes()[4:]
		var data bytes.Buffer
		wide := func(body []byte) {
			data.Write([]byte{0xff, 0xff, 0xff, 0xff})
			data.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(body))))
			data.Write(body)
		}
		if debug {
			wide(append(bytes.Repeat([]byte{0xff}, 8), content[4:]...))
			body := binary.LittleEndian.AppendUint64(make([]byte, 8), testCode)
			wide(binary.LittleEndian.AppendUint64(body, 64))
		} else {
			wide(content)
			at := uint64(data.Len()) + 12
			body := binary.LittleEndian.AppendUint32(nil, uint32(at))
			body = binary.LittleEndian.AppendUint32(body, uint32(testCode-(testFrames+at+4)&(1<<32-1)))
			wide(append(binary.LittleEndian.AppendUint32(body, 64), 0))
		}
		section := &frameSection{
			reader: bytes.NewReader(data.Bytes()), size: int64(data.Len()), address: testFrames, debug: debug,
		}
		table, counts, err := tableOf(elf.EM_X86_64, section)
		require.NoError(t, err)
		assert.Equal(t, Counts{Functions: 1}, counts)
		assert.Equal(t, []Row{row(0, RuleStack, 1, kept), row(64, RuleNone, 0, kept)}, table.Rows)
	}
}

// brokenReader fails at a place.
type brokenReader struct {
	io.ReaderAt
	from int64
}

var errBroken = errors.New("input/output error")

func (b brokenReader) ReadAt(buffer []byte, offset int64) (int, error) {
	if offset+int64(len(buffer)) > b.from {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(buffer, offset)
}

func TestErrorsOfReading(t *testing.T) {
	var written frames
	written.function(written.amd64Common(), testCode, 32)
	section := written.section()
	section.reader = brokenReader{section.reader, 8}
	_, _, err := tableOf(elf.EM_X86_64, section)
	require.ErrorIs(t, err, errBroken)
	assert.Equal(t, ReasonUnreadable, ReasonOf(err))
}

func TestRowsInTheKernel(t *testing.T) {
	table := Table{Rows: []Row{{Address: 0x01020304, Offset: -2, Rule: RuleStack | ReturnBeside, FramePointer: -3}}}
	assert.Equal(t, []byte{9, 4, 3, 2, 1, 0xfe, 0xff, 0x46, 0xfd}, table.Append([]byte{9}))
	assert.EqualValues(t, RowBytes, table.Bytes())
	assert.Equal(t, RuleStack, table.Rows[0].Rule.CFA())
	assert.Equal(t, ReturnBeside, table.Rows[0].Rule.Return())
	other := RuleRegister | ReturnLink | 19
	assert.Equal(t, RuleRegister, other.CFA())
	assert.EqualValues(t, 19, other.Register())
	assert.Equal(t, ReturnLink, other.Return())
	assert.Equal(t, "r19 link", other.String())
	assert.Equal(t, "stack beside", table.Rows[0].Rule.String())
}

// Each function has a CIE of its own that is long and far away: all of them together would take hours.
func TestCommonEntriesThatCostTooMuch(t *testing.T) {
	var written frames
	common := written.amd64Common()
	nops := make([]byte, maxRecordBytes-64)
	for range 8 {
		written.write(append([]byte{0xff, 0xff, 0xff, 0xff}, nops...)) // FDEs of nothing
	}
	inside := common + 64
	for number := range 4096 {
		// A place inside of the nops that looks like a CIE by itself: a length, an identifier of zero, version 1, zR.
		place := inside + number*1024
		copy(written.data.Bytes()[place:], []byte{
			0, 0xff, 0x0f, 0, 0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1,
		})
	}
	for number := range 4096 {
		written.function(inside+number*1024, testCode, 16)
	}
	_, counts, err := tableOf(elf.EM_X86_64, written.section())
	assert.Equal(t, ReasonTooLarge, ReasonOf(err), "%v", counts)
	assert.Positive(t, counts.Functions)
	assert.Less(t, counts.Functions, 1000)
}
