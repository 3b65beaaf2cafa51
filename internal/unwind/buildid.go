//go:build linux

package unwind

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
)

// htlHash identifies any file by its head, tail and length (https://opentelemetry.io/docs/specs/otel/profiles/mappings).
func htlHash(reader io.ReaderAt, size int64) (string, error) {
	const pageBytes, digestBytes = 4096, 16
	hash := sha256.New()
	page := make([]byte, min(size, pageBytes))
	for _, offset := range [...]int64{0, size - int64(len(page))} {
		if _, err := reader.ReadAt(page, offset); err != nil && !errors.Is(err, io.EOF) {
			return "", failure(ReasonUnreadable, "read the head and tail of a file: %w", err)
		}
		hash.Write(page)
	}
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(size))
	hash.Write(length[:])
	return hex.EncodeToString(hash.Sum(nil)[:digestBytes]), nil
}

// readBuildID reads the notes of the linkers.
func (i *image) readBuildID() (err error) {
	if i.found.BuildID.HTLHash, err = htlHash(i.reader, i.size); err != nil {
		return err
	}
	read := func(offset, length uint64) error {
		if length > maxNoteBytes || offset > math.MaxInt64 {
			return nil
		}
		data := make([]byte, length)
		count, err := i.reader.ReadAt(data, int64(offset))
		if err != nil && !errors.Is(err, io.EOF) {
			return failure(ReasonUnreadable, "read the notes of an ELF file: %w", err)
		}
		i.found.BuildID.note(data[:count])
		return nil
	}
	for _, header := range i.file.Progs {
		if header.Type == elf.PT_NOTE {
			if err := read(header.Off, header.Filesz); err != nil {
				return err
			}
		}
	}
	// Linkers of Go before 1.10, and others on request, leave the note to its section.
	for _, name := range [...]string{".note.gnu.build-id", ".note.go.buildid"} {
		if section := i.file.Section(name); section != nil && section.Type == elf.SHT_NOTE {
			if err := read(section.Offset, section.FileSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// note takes build ids out of notes (System V ABI, "Note Section").
func (b *BuildID) note(data []byte) {
	const typeGNU, typeGo = 3, 4 // NT_GNU_BUILD_ID; cmd/link/internal/ld: ELF_NOTE_GOBUILDID_TAG
	c := cursor{data: data}
	for c.more() {
		nameBytes, descriptionBytes, kind := c.uint32(), c.uint32(), c.uint32()
		name := c.take(aligned(nameBytes))
		description := c.take(aligned(descriptionBytes))
		if c.failed && len(description) == 0 || uint64(len(description)) < uint64(descriptionBytes) ||
			descriptionBytes == 0 || descriptionBytes > maxBuildIDBytes {
			continue
		}
		description = description[:descriptionBytes]
		switch {
		case kind == typeGNU && bytes.Equal(name, []byte("GNU\x00")) && b.GNU == "":
			b.GNU = hex.EncodeToString(description)
		case kind == typeGo && bytes.Equal(name, []byte("Go\x00\x00")) && b.Go == "":
			b.Go = string(description)
		}
	}
}

// aligned is the place that so many bytes take in a note.
func aligned(count uint32) uint64 { return (uint64(count) + 3) &^ 3 }
