package profileview

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// MaximumMessage is how many bytes one message of a file may have, decompressed. The file exporter writes what one export
// carried as one message, which is a few megabytes at most.
const MaximumMessage = 256 << 20

const (
	zstdMagic = "\x28\xb5\x2f\xfd" // RFC 8878, section 3.1.1
	gzipMagic = "\x1f\x8b"         // RFC 1952, section 2.3.1
)

// errCutShort marks the end of a file that is being written, or whose writer was killed.
var errCutShort = errors.New("the file ends in the middle of a message; the Collector may be still writing to it")

// MessageError is a message that cannot be read while those after it can.
type MessageError struct {
	Number int // of the message in the file, from 1
	Err    error
}

func (e *MessageError) Error() string { return fmt.Sprintf("message %d: %v", e.Number, e.Err) }

// Unwrap returns why the message cannot be read.
func (e *MessageError) Unwrap() error { return e.Err }

// Reader reads the messages of one file, one after the other; it holds no more than one of them.
//
// It knows all forms that the file exporter writes: JSON with a message on each line; with `format: proto` or with
// compression, messages with a length of 4 bytes (big endian) before each, which are JSON or protobuf, each compressed by
// zstd or not; and with the feature gate exporter.file.nativeCompression, any of these in one zstd stream. A file that
// was compressed by gzip afterwards is read too.
type Reader struct {
	source  *bufio.Reader
	read    func() ([]byte, error)
	number  int
	ended   bool
	maximum int

	stream  *zstd.Decoder // of the whole file, or nil
	message *zstd.Decoder // of single messages, made when there is one that needs it
	buffer  bytes.Buffer
}

// NewReader begins to read a file. It fails if the source does, or if the source is compressed and the beginning is broken.
func NewReader(source io.Reader) (*Reader, error) {
	reader := &Reader{source: bufio.NewReaderSize(source, 64<<10), maximum: MaximumMessage}
	if err := reader.decompress(); err != nil {
		reader.Close()
		return nil, err
	}
	first, err := reader.firstByte()
	switch {
	case errors.Is(err, io.EOF):
		reader.ended = true
	case cutShort(err): // before anything could be decompressed
		reader.read = func() ([]byte, error) { return nil, err }
	case err != nil:
		reader.Close()
		return nil, fmt.Errorf("read its beginning: %w", err)
	case first == '{':
		reader.read = reader.line
	default:
		reader.read = reader.prefixed
	}
	return reader, nil
}

// Close frees the decompressors. The source stays open: it is the caller's.
func (r *Reader) Close() {
	if r.stream != nil {
		r.stream.Close()
	}
	if r.message != nil {
		r.message.Close()
	}
}

// decompress puts decompressors before the source, as many as its first bytes ask for.
func (r *Reader) decompress() error {
	for range 2 { // a native zstd stream may have been packed by gzip; deeper nesting has no honest reason
		magic, _ := r.source.Peek(len(zstdMagic)) // an error comes again with the next read
		switch {
		case bytes.HasPrefix(magic, []byte(gzipMagic)):
			unpacked, err := gzip.NewReader(r.source)
			if err != nil {
				return fmt.Errorf("decompress it with gzip: %w", err)
			}
			r.source = bufio.NewReaderSize(unpacked, 64<<10)
		case string(magic) == zstdMagic && r.stream == nil:
			// One thread: files are small beside what it costs to start more.
			stream, err := zstd.NewReader(r.source, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaximumMessage))
			if err != nil {
				return fmt.Errorf("decompress it with zstd: %w", err)
			}
			r.stream, r.source = stream, bufio.NewReaderSize(stream, 64<<10)
		default:
			return nil
		}
	}
	return nil
}

// firstByte is the first one that is not white space, which only JSON has before it. Lengths begin with a zero: messages are
// smaller than 16 MiB, or with a few more bits that are no brace.
func (r *Reader) firstByte() (byte, error) {
	for ahead := 1; ; ahead++ {
		seen, err := r.source.Peek(ahead)
		if err != nil {
			if len(seen) > 0 && errors.Is(err, io.EOF) {
				return seen[0], nil
			}
			return 0, err
		}
		switch last := seen[ahead-1]; {
		case last == '{':
			return last, nil
		case last != ' ' && last != '\n' && last != '\r' && last != '\t', ahead == r.source.Size():
			return seen[0], nil
		}
	}
}

// Next returns the next message, or io.EOF after the last one. After a *MessageError reading can go on; after any other
// error it cannot.
func (r *Reader) Next() (pprofile.Profiles, error) {
	if r.ended {
		return pprofile.Profiles{}, io.EOF
	}
	r.number++
	content, err := r.read()
	switch {
	case errors.As(err, new(*MessageError)): // the next one may be whole
		return pprofile.Profiles{}, err
	case cutShort(err):
		r.ended = true
		return pprofile.Profiles{}, &MessageError{Number: r.number, Err: errCutShort}
	case err != nil:
		r.ended = true
		return pprofile.Profiles{}, err
	}
	profiles, err := unmarshal(content)
	switch {
	case err != nil && r.ended: // the last line, without its end
		return pprofile.Profiles{}, &MessageError{Number: r.number, Err: fmt.Errorf("%w (%w)", errCutShort, err)}
	case err != nil:
		return pprofile.Profiles{}, &MessageError{Number: r.number, Err: err}
	}
	return profiles, nil
}

func cutShort(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }

func unmarshal(content []byte) (pprofile.Profiles, error) {
	if bytes.HasPrefix(content, []byte("{")) {
		unmarshaler := pprofile.JSONUnmarshaler{}
		profiles, err := unmarshaler.UnmarshalProfiles(content)
		if err != nil {
			return profiles, fmt.Errorf("parse %d bytes of JSON: %w", len(content), err)
		}
		return profiles, nil
	}
	unmarshaler := pprofile.ProtoUnmarshaler{}
	profiles, err := unmarshaler.UnmarshalProfiles(content)
	if err != nil {
		return profiles, fmt.Errorf("parse %d bytes of protobuf: %w", len(content), err)
	}
	return profiles, nil
}

// line reads up to the next end of a line. What it returns is valid until it is called again.
func (r *Reader) line() ([]byte, error) {
	for {
		r.buffer.Reset()
		tooLong := false
		for {
			part, err := r.source.ReadSlice('\n')
			if tooLong = tooLong || r.buffer.Len()+len(part) > r.maximum; !tooLong {
				r.buffer.Write(part)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if errors.Is(err, io.EOF) {
				r.ended = true
			} else if err != nil {
				return nil, fmt.Errorf("read message %d: %w", r.number, err)
			}
			break
		}
		if tooLong {
			return nil, &MessageError{Number: r.number, Err: fmt.Errorf("the line is longer than %d bytes", r.maximum)}
		}
		if content := bytes.TrimSpace(r.buffer.Bytes()); len(content) > 0 {
			return content, nil
		}
		if r.ended {
			return nil, io.EOF
		}
	}
}

// prefixed reads a length and as many bytes. What it returns is valid until it is called again.
func (r *Reader) prefixed() ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(r.source, prefix[:]); err != nil {
		if errors.Is(err, io.EOF) {
			r.ended = true
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read the length of message %d: %w", r.number, err)
	}
	length := int64(binary.BigEndian.Uint32(prefix[:]))
	if length > int64(r.maximum) {
		return nil, fmt.Errorf("message %d has a length of %d bytes, more than the %d that are read: "+
			"this is no output of the Collector's file exporter, or it is damaged", r.number, length, r.maximum)
	}
	r.buffer.Reset() // grows with what is there, not with what the prefix claims
	if _, err := io.CopyN(&r.buffer, r.source, length); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read message %d: %w", r.number, err)
	}
	content := r.buffer.Bytes()
	if !bytes.HasPrefix(content, []byte(zstdMagic)) {
		return content, nil
	}
	if r.message == nil {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(r.maximum)))
		if err != nil {
			return nil, fmt.Errorf("decompress message %d with zstd: %w", r.number, err)
		}
		r.message = decoder
	}
	unpacked, err := r.message.DecodeAll(content, nil)
	if err != nil {
		return nil, &MessageError{Number: r.number, Err: fmt.Errorf("decompress it with zstd: %w", err)}
	}
	return unpacked, nil
}
