package genai

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func addSamples(f *testing.F) {
	f.Helper()
	for _, sample := range samples {
		f.Add(uint8(sample.kind), []byte(sample.request), []byte(sample.response), uint16(100), uint16(150))
		f.Add(uint8(sample.kind), []byte(sample.request), []byte(chunked(sample.response, 90)), uint16(4096), uint16(4096))
	}
}

// Whatever the bytes are, reading them ends, and what it gives is bounded.
func FuzzRead(f *testing.F) {
	addSamples(f)
	f.Fuzz(func(t *testing.T, kind uint8, request, response []byte, first, last uint16) {
		for _, complete := range []bool{true, false} {
			got, ok := Read(Kind(kind), Bodies{
				Request:     request,
				Response:    response[:min(len(response), int(first))],
				ResponseEnd: response[max(0, len(response)-int(last)):],
				Whole:       complete,
			})
			if !ok {
				continue
			}
			for _, name := range []string{got.RequestModel, got.ResponseModel, got.ResponseID} {
				assert.LessOrEqual(t, len(name), 3*maxName) // what is no UTF-8 grows when it is made so
			}
			assert.LessOrEqual(t, len(got.FinishReasons), maxChoices)
			assert.GreaterOrEqual(t, got.InputTokens, int64(-1))
			assert.GreaterOrEqual(t, got.OutputTokens, int64(-1))
		}
	})
}

// What is told of the first and the last bytes of a JSON object is what a parser of all of it says, or nothing.
func FuzzAgainstParser(f *testing.F) {
	addSamples(f)
	f.Fuzz(func(t *testing.T, kind uint8, request, response []byte, first, last uint16) {
		requireWhatAParserSays(t, Kind(kind), request, response, int(first), int(last))
	})
}

// The same of objects whose strings are full of what looks like their members.
func TestRandomObjects(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	told := 0
	for range 20_000 {
		request, response := randomObject(t, random), randomObject(t, random)
		kind := []Kind{OpenAIChat, OllamaChat}[random.IntN(2)]
		got := requireWhatAParserSays(t, kind, request, response, random.IntN(300), random.IntN(300))
		if got != nil && got.InputTokens >= 0 {
			told++
		}
	}
	assert.Greater(t, told, 2_000)
}

func randomObject(t *testing.T, random *rand.Rand) []byte {
	t.Helper()
	var value func(depth int) any
	text := func() string {
		fragments := []string{
			`"`, `\`, `\\"`, "{", "}", "[", "]", ":", ",", "\n", "a", "é", "7", " ", `"model":"x"`, `"usage":{"prompt_tokens":1}`,
			`,"eval_count":3}`, `"}`, `\"}`, "data: {}", "\r\n5\r\n", `"choices":[{"index":0,"finish_reason":"x"}]`,
		}
		var b strings.Builder
		for range random.IntN(6) {
			b.WriteString(fragments[random.IntN(len(fragments))])
		}
		return b.String()
	}
	object := func(depth int) any {
		members := map[string]any{}
		for range random.IntN(5) {
			members[[]string{"model", "usage", "id", "done", "eval_count", text()}[random.IntN(6)]] = value(depth + 1)
		}
		return members
	}
	value = func(depth int) any {
		switch kind := random.IntN(8); {
		case kind < 3:
			return text()
		case kind == 3:
			return random.IntN(1000)
		case kind == 4:
			return []any{nil, true, false, -1.5e-7}[random.IntN(4)]
		case depth > 4:
			return nil
		case kind == 5:
			return []any{value(depth + 1), value(depth + 1), object(depth + 1)}[:random.IntN(4)]
		}
		return object(depth)
	}
	members := []string{}
	add := func(name string, value any) {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		require.NoError(t, encoder.Encode(value))
		members = append(members, strconv.Quote(name)+":"+b.String()) // with a line break after
	}
	for i, name := range []string{
		"model", "id", "done", "done_reason", "prompt_eval_count", "eval_count", "messages", "data", "options", "choices", "usage",
	} {
		switch {
		case random.IntN(3) == 0:
			continue
		case i < 2:
			add(name, text())
		case name == "done":
			add(name, random.IntN(2) == 0)
		case i < 6:
			add(name, random.IntN(1000))
		case name == "choices":
			add(name, []any{map[string]any{"message": value(0), "index": 0, "finish_reason": text()}})
		case name == "usage":
			add(name, map[string]any{"completion_tokens": random.IntN(99), "prompt_tokens": random.IntN(99), "x": value(0)})
		default:
			add(name, value(0))
		}
	}
	random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return []byte("{" + strings.Join(members, ",") + "}")
}

// requireWhatAParserSays reads the first and last bytes of two bodies, and compares. The result is nil where there was
// nothing to compare.
func requireWhatAParserSays(t *testing.T, kind Kind, request, response []byte, first, last int) *Exchange {
	t.Helper()
	request, response = bytes.TrimSpace(request), bytes.TrimSpace(response)
	got, ok := Read(kind, Bodies{
		Request:     request[:min(len(request), first)],
		Response:    response[:min(len(response), first)],
		ResponseEnd: response[max(0, len(response)-last):],
		Whole:       true,
	})
	if !ok {
		return nil
	}
	if object := parse(request); object != nil && got.RequestModel != "" {
		require.Equal(t, textOf(object["model"]), got.RequestModel)
	}
	object := parse(response)
	if object == nil {
		return nil
	}
	if got.ResponseModel != "" {
		require.Equal(t, textOf(object["model"]), got.ResponseModel)
	}
	input, output := object["prompt_eval_count"], object["eval_count"]
	if !kind.ollama() {
		if got.ResponseID != "" {
			require.Equal(t, textOf(object["id"]), got.ResponseID)
		}
		usage := map[string]json.RawMessage{}
		_ = json.Unmarshal(object["usage"], &usage)
		input, output = usage["prompt_tokens"], usage["completion_tokens"]
		if input == nil {
			input = usage["input_tokens"]
		}
		if output == nil {
			output = usage["output_tokens"]
		}
		if len(usage["prompt_tokens"])*len(usage["input_tokens"])+
			len(usage["completion_tokens"])*len(usage["output_tokens"]) > 0 {
			return nil // nobody sends both
		}
		var choices []map[string]any
		if json.Unmarshal(object["choices"], &choices) == nil {
			for _, reason := range got.FinishReasons {
				require.True(t, slices.ContainsFunc(choices, func(choice map[string]any) bool {
					return choice["finish_reason"] == reason
				}))
			}
		}
	}
	if got.InputTokens >= 0 {
		require.Equal(t, string(input), strconv.FormatInt(got.InputTokens, 10))
	}
	if got.OutputTokens >= 0 {
		require.Equal(t, string(output), strconv.FormatInt(got.OutputTokens, 10))
	}
	return got
}

// parse parses an object of JSON, of which parsers agree what it means: nil if it is not one.
func parse(data []byte) map[string]json.RawMessage {
	if !utf8.Valid(data) || bytes.Contains(data, []byte(`\u`)) {
		return nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) != nil || duplicates(data) {
		return nil
	}
	return object
}

// duplicates says whether any object in the JSON has a name twice.
func duplicates(data []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(data))
	type level struct {
		names map[string]bool // nil: an array
		value bool            // what comes next is the value of a name
	}
	var levels []*level
	for {
		token, err := decoder.Token()
		if err != nil {
			return false
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, &level{names: map[string]bool{}})
			continue
		case json.Delim('['):
			levels = append(levels, &level{})
			continue
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		default:
			if len(levels) > 0 && levels[len(levels)-1].names != nil && !levels[len(levels)-1].value {
				name, _ := token.(string)
				if levels[len(levels)-1].names[name] {
					return true
				}
				levels[len(levels)-1].names[name], levels[len(levels)-1].value = true, true
				continue
			}
		}
		if len(levels) > 0 {
			levels[len(levels)-1].value = false
		}
	}
}

// textOf is the string that JSON is; empty: it is none.
func textOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return text
}
