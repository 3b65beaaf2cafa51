package profileview

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/ebpfreceiver/ebpfreceiver/internal/profileview/profiletest"
)

func toJSON(t testing.TB, samples []profiletest.Sample) []byte {
	t.Helper()
	marshaler := pprofile.JSONMarshaler{}
	content, err := marshaler.MarshalProfiles(profiletest.Build(samples))
	require.NoError(t, err)
	return content
}

func toProto(t testing.TB, samples []profiletest.Sample) []byte {
	t.Helper()
	marshaler := pprofile.ProtoMarshaler{}
	content, err := marshaler.MarshalProfiles(profiletest.Build(samples))
	require.NoError(t, err)
	return content
}

func lines(messages ...[]byte) []byte { return append(bytes.Join(messages, []byte("\n")), '\n') }

func prefixed(messages ...[]byte) []byte {
	var file []byte
	for _, message := range messages {
		file = append(binary.BigEndian.AppendUint32(file, uint32(len(message))), message...)
	}
	return file
}

func zstdPacked(t testing.TB, content []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	defer encoder.Close()
	return encoder.EncodeAll(content, nil)
}

func gzipPacked(t testing.TB, content []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	_, err := writer.Write(content)
	require.NoError(t, errors.Join(err, writer.Close()))
	return packed.Bytes()
}

// read returns the sum of a file's samples and what its messages failed with.
func read(t testing.TB, source io.Reader) (profile *Profile, broken []error, fatal error) {
	t.Helper()
	profile = NewProfile()
	reader, err := NewReader(source)
	if err != nil {
		return profile, nil, err
	}
	defer reader.Close()
	for {
		message, err := reader.Next()
		var messageError *MessageError
		switch {
		case errors.Is(err, io.EOF):
			return profile, broken, nil
		case errors.As(err, &messageError):
			broken = append(broken, err)
		case err != nil:
			return profile, broken, err
		default:
			profile.Add(message, Filter{})
		}
	}
}

func samplesType() ValueType { return ValueType{Name: "samples", Unit: "count"} }

// All forms that the file exporter can write tell the same.
func TestReaderForms(t *testing.T) {
	samples := profiletest.Mixed()
	total := countOf(samples, "")
	inJSON, inProto := toJSON(t, samples), toProto(t, samples)
	for name, file := range map[string][]byte{
		"JSON":                               lines(inJSON, inJSON),
		"JSON, last line open":               bytes.TrimSpace(lines(inJSON, inJSON)),
		"JSON, blank lines":                  []byte("\n \r\n" + string(lines(inJSON)) + "\n\n" + string(lines(inJSON))),
		"proto":                              prefixed(inProto, inProto),
		"JSON, messages of zstd":             prefixed(zstdPacked(t, inJSON), zstdPacked(t, inJSON)),
		"proto, messages of zstd":            prefixed(zstdPacked(t, inProto), zstdPacked(t, inProto)),
		"JSON, one zstd stream":              zstdPacked(t, lines(inJSON, inJSON)),
		"JSON, zstd frames one after other":  append(zstdPacked(t, lines(inJSON)), zstdPacked(t, lines(inJSON))...),
		"proto, one zstd stream":             zstdPacked(t, prefixed(inProto, inProto)),
		"JSON, gzip":                         gzipPacked(t, lines(inJSON, inJSON)),
		"one zstd stream, packed with gzip":  gzipPacked(t, zstdPacked(t, lines(inJSON, inJSON))),
		"proto and JSON in one file":         prefixed(inProto, inJSON),
		"proto, with messages without bytes": prefixed(inProto, nil, inProto),
	} {
		t.Run(name, func(t *testing.T) {
			profile, broken, err := read(t, bytes.NewReader(file))
			require.NoError(t, err)
			assert.Empty(t, broken)
			assert.Equal(t, 2*total, profile.Total(samplesType()))
			assert.Empty(t, profile.Skipped)
		})
	}
}

// What the file exporter v0.159.0 really wrote in a Collector v0.162.0, with each of its settings and with and without the
// feature gate exporter.file.nativeCompression: the first samples of profiletest.Mixed, sent twice.
func TestFileExporter(t *testing.T) {
	files, err := filepath.Glob("testdata/fileexporter/*")
	require.NoError(t, err)
	require.Len(t, files, 6)
	want := collect(profiletest.Mixed()[:6], Filter{})
	for _, path := range files {
		file, err := os.Open(path)
		require.NoError(t, err)
		defer file.Close()
		profile, broken, err := read(t, file)
		require.NoError(t, err, path)
		assert.Empty(t, broken, path)
		assert.Equal(t, int64(2), profile.Messages, path)
		assert.Equal(t, want.Stacks(), profile.Stacks(), path)
		require.Equal(t, len(want.order), len(profile.order), path)
		for i := range want.order {
			assert.Equal(t, 2*want.order[i].value, profile.order[i].value, path)
			assert.Equal(t, want.unpackLabels(want.order[i].resource), profile.unpackLabels(profile.order[i].resource), path)
			assert.Equal(t, want.links.entries[want.order[i].link], profile.links.entries[profile.order[i].link], path)
		}
	}
}

func TestReaderEmpty(t *testing.T) {
	for _, file := range []string{"", "\n", " "} {
		profile, _, err := read(t, strings.NewReader(file))
		if err == nil { // a single space is no length either
			assert.Zero(t, profile.Samples)
		}
	}
}

// What is broken is told of, and what is not is read.
func TestReaderBroken(t *testing.T) {
	const endsInTheMiddle = "the file ends in the middle of a message"
	samples := profiletest.Mixed()
	inJSON, inProto := toJSON(t, samples), toProto(t, samples)
	for name, test := range map[string]struct {
		file  []byte
		whole int64 // messages that must be read
		want  string
	}{
		"last line cut":             {lines(inJSON, inJSON)[:len(inJSON)+500], 1, endsInTheMiddle},
		"line in the middle broken": {lines(inJSON, inJSON[:300], inJSON), 2, "message 2: parse 300 bytes of JSON"},
		"last message cut":          {prefixed(inProto, inProto)[:len(inProto)+500], 1, endsInTheMiddle},
		"length cut":                {prefixed(inProto, inProto)[:len(inProto)+6], 1, endsInTheMiddle},
		"message in the middle":     {prefixed(inProto, []byte("\x0a\xff"), inProto), 2, "message 2: parse 2 bytes of protobuf"},
		"message of broken zstd":    {prefixed(inProto, []byte(zstdMagic+"nonsense"), inProto), 2, "decompress it with zstd"},
		"zstd stream cut":           {zstdPacked(t, lines(inJSON, inJSON))[:900], 0, endsInTheMiddle},
	} {
		t.Run(name, func(t *testing.T) {
			profile, broken, err := read(t, bytes.NewReader(test.file))
			require.NoError(t, err)
			require.Len(t, broken, 1)
			assert.ErrorContains(t, broken[0], test.want)
			assert.Equal(t, test.whole, profile.Messages)
			assert.Equal(t, test.whole*countOf(samples, ""), profile.Total(samplesType()))
		})
	}
	t.Run("no length", func(t *testing.T) {
		_, _, err := read(t, strings.NewReader("# a text that is no profile\n"))
		assert.ErrorContains(t, err, "no output of the Collector's file exporter")
	})
	t.Run("gzip", func(t *testing.T) {
		_, _, err := read(t, strings.NewReader(gzipMagic+"nonsense of a certain length"))
		assert.ErrorContains(t, err, "decompress it with gzip")
	})
}

// A message beyond the limit costs no memory, and those after it are read.
func TestReaderLimit(t *testing.T) {
	reader, err := NewReader(strings.NewReader(`{"unknown":"` + strings.Repeat("x", 1<<20) + "\"}\n{}\n"))
	require.NoError(t, err)
	defer reader.Close()
	reader.maximum = 1000
	_, err = reader.Next()
	assert.ErrorContains(t, err, "message 1: the line is longer than 1000 bytes")
	_, err = reader.Next()
	require.NoError(t, err)
	_, err = reader.Next()
	assert.ErrorIs(t, err, io.EOF)

	bomb := zstdPacked(t, make([]byte, 1<<20))
	reader, err = NewReader(bytes.NewReader(prefixed(bomb, nil)))
	require.NoError(t, err)
	defer reader.Close()
	reader.maximum = 2000
	_, err = reader.Next()
	assert.ErrorContains(t, err, "message 1: decompress it with zstd")
	_, err = reader.Next()
	assert.NoError(t, err)
}

// Whatever a file holds, it is read to its end, and what came of it can be shown.
func FuzzRead(f *testing.F) {
	small := profiletest.Mixed()[:3]
	inJSON, inProto := toJSON(f, small), toProto(f, small)
	f.Add(lines(inJSON))
	f.Add(prefixed(inProto))
	f.Add(prefixed(zstdPacked(f, inProto)))
	f.Add(zstdPacked(f, lines(inJSON)))
	f.Add([]byte(`{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"samples":[{"stackIndex":1,"values":["1"]}]}]}]}],` +
		`"dictionary":{"stackTable":[{},{"locationIndices":[1,-1,7]}],` +
		`"locationTable":[{},{"mappingIndex":-3,"lines":[{"functionIndex":9}]}]}}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		profile, _, _ := read(t, bytes.NewReader(file))
		if len(profile.order) == 0 {
			return
		}
		if _, err := profile.Pprof(); err != nil {
			t.Fatal(err)
		}
		if err := profile.WritePage(io.Discard, "fuzz", nil); err != nil {
			t.Fatal(err)
		}
	})
}
