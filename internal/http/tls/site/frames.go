package site

import (
	"encoding/binary"
	"sort"
)

// bounds finds where the function begins and ends that an address lies in, in the tables for exceptions, which stripped
// files have too: .eh_frame_hdr is sorted by address (Linux Standard Base, "Exception Frames"). Only the encodings are
// read that linkers of amd64 write.
func (i *image) bounds(address uint64) (start, end uint64, found bool) {
	header := i.file.Section(".eh_frame_hdr")
	if header == nil || header.Size < 12 {
		return 0, 0, false
	}
	const (
		version          = 1
		fourBytesPCRel   = 0x1b // DW_EH_PE_pcrel | DW_EH_PE_sdata4
		fourBytesCount   = 0x03 // DW_EH_PE_udata4
		fourBytesDataRel = 0x3b // DW_EH_PE_datarel | DW_EH_PE_sdata4
		entryBytes       = 8
		headBytes        = 12
	)
	var head [headBytes]byte
	if i.read(head[:], header.Addr) != headBytes || head[0] != version || head[1] != fourBytesPCRel ||
		head[2] != fourBytesCount || head[3] != fourBytesDataRel {
		return 0, 0, false
	}
	count := min(uint64(binary.LittleEndian.Uint32(head[8:])), (header.Size-headBytes)/entryBytes)
	entry := func(index int) (function, frame uint64) {
		var entry [entryBytes]byte
		if i.read(entry[:], header.Addr+headBytes+uint64(index)*entryBytes) != entryBytes {
			return 0, 0
		}
		return header.Addr + signed32(entry[:]), header.Addr + signed32(entry[4:])
	}
	after := sort.Search(int(count), func(index int) bool {
		function, _ := entry(index)
		return function > address
	})
	if after == 0 {
		return 0, 0, false
	}
	_, frame := entry(after - 1)
	start, size, ok := i.frame(frame)
	if !ok || address < start || address-start >= size {
		return 0, 0, false
	}
	return start, start + size, true
}

// frame reads the range of a frame description entry. Its addresses are as four signed bytes from their place, which its
// common information entry has to say ("zR" and what may follow).
func (i *image) frame(address uint64) (start, size uint64, ok bool) {
	var entry [16]byte
	if i.read(entry[:], address) != len(entry) {
		return 0, 0, false
	}
	length, back := binary.LittleEndian.Uint32(entry[:]), binary.LittleEndian.Uint32(entry[4:])
	if length < 12 || length == 0xffffffff || back == 0 {
		return 0, 0, false
	}
	if !i.pcRelativeFrames(address + 4 - uint64(back)) {
		return 0, 0, false
	}
	return address + 8 + signed32(entry[8:]), uint64(binary.LittleEndian.Uint32(entry[12:])), true
}

// pcRelativeFrames tells whether a common information entry describes addresses in the usual encoding.
func (i *image) pcRelativeFrames(address uint64) bool {
	var entry [48]byte
	data := entry[:i.read(entry[:], address)]
	// Length, identifier (0) and version, then the augmentation.
	if len(data) < 16 || binary.LittleEndian.Uint32(data[4:]) != 0 || data[8] != 1 || data[9] != 'z' {
		return false
	}
	data = data[10:]
	end := 0
	for end < len(data) && data[end] != 0 {
		end++
	}
	augmentation := data[:end]
	// Code alignment, data alignment, return address register (one byte in version 1), length of the augmentation's data.
	data = data[min(end+1, len(data)):]
	for _, oneByte := range []bool{false, false, true, false} {
		for len(data) > 0 && !oneByte && data[0]&0x80 != 0 {
			data = data[1:]
		}
		if len(data) == 0 {
			return false
		}
		data = data[1:]
	}
	for _, letter := range augmentation {
		if len(data) == 0 {
			return false
		}
		switch letter {
		case 'R':
			return data[0] == 0x1b
		case 'L':
			data = data[1:]
		case 'P':
			if data[0] != 0x1b && data[0] != 0x9b && data[0] != 0x03 || len(data) < 5 {
				return false
			}
			data = data[5:]
		case 'S', 'B':
		default:
			return false
		}
	}
	return false
}

func signed32(data []byte) uint64 { return uint64(int64(int32(binary.LittleEndian.Uint32(data)))) }
