package genai

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
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
		request, response = bytes.TrimSpace(request), bytes.TrimSpace(response)
		bodies := Bodies{
			Request:     request[:min(len(request), int(first))],
			Response:    response[:min(len(response), int(first))],
			ResponseEnd: response[max(0, len(response)-int(last)):],
			Whole:       true,
		}
		got, ok := Read(Kind(kind), bodies)
		if !ok {
			return
		}
		if object := parse(request); object != nil && got.RequestModel != "" {
			require.Equal(t, textOf(object["model"]), got.RequestModel)
		}
		object := parse(response)
		if object == nil {
			return
		}
		if got.ResponseModel != "" {
			require.Equal(t, textOf(object["model"]), got.ResponseModel)
		}
		input, output := object["prompt_eval_count"], object["eval_count"]
		if !Kind(kind).ollama() {
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
				return // nobody sends both
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
	})
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
