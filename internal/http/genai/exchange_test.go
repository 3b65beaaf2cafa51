package genai

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The samples are in the form of the APIs' documentation: platform.openai.com/docs/api-reference/chat,
// learn.microsoft.com/azure/ai-services/openai/reference, docs.ollama.com/api.
const (
	chatRequest = `{"model":"gpt-4o","messages":[{"role":"developer","content":"You are a helpful assistant."},` +
		`{"role":"user","content":"Hello! {\"model\":\"fake\"}"}],"stream":false}`
	chatResponse = `{
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
  "object": "chat.completion",
  "created": 1741569952,
  "model": "gpt-4o-2024-08-06",
  "choices": [
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": "Hello! How can I assist \"you\" today? {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}",
        "refusal": null,
        "annotations": []
      },
      "logprobs": null,
      "finish_reason": "stop"
    }
  ],
  "usage": {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0, "prompt_tokens": 77},
    "completion_tokens_details": {"reasoning_tokens": 0, "completion_tokens": 88}
  },
  "service_tier": "default"
}
`
	chatStream = `data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini",` +
		`"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini",` +
		`"choices":[{"index":0,"delta":{"content":"data: {\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n"},` +
		`"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini",` +
		`"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini",` +
		`"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}

data: [DONE]

`
	completionResponse = `{"id":"cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7","object":"text_completion","created":1589478378,` +
		`"model":"VAR_model_id","system_fingerprint":"fp_44709d6fcb","choices":[` +
		`{"text":"\n\nThis is indeed a test","index":0,"logprobs":null,"finish_reason":"length"},` +
		`{"text":"}]","index":1,"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}`
	embeddingsResponse = `{"object":"list","data":[{"object":"embedding","embedding":[0.0023064255,-0.009327292,-1e-05],` +
		`"index":0}],"model":"text-embedding-ada-002","usage":{"prompt_tokens":8,"total_tokens":8}}`
	generateRequest = `{"model": "llama3.2", "prompt": "Why is the sky blue?"}`
	generateStream  = `{"model":"llama3.2","created_at":"2023-08-04T08:52:19.385406455-07:00","response":"The","done":false}
{"model":"llama3.2","created_at":"2023-08-04T08:52:19.5-07:00","response":"{\"eval_count\":1,\"done\":true}","done":false}
{"model":"llama3.2","created_at":"2023-08-04T19:22:45.499127Z","response":"","done":true,"done_reason":"stop",` +
		`"context":[1,2,3],"total_duration":10706818083,"load_duration":6338219291,"prompt_eval_count":26,` +
		`"prompt_eval_duration":130079000,"eval_count":259,"eval_duration":4232710000}
`
	ollamaChatResponse = `{"model":"llama3.2","created_at":"2023-12-12T14:13:43.416799Z","message":{"role":"assistant",` +
		`"content":"Hello! How are you today?"},"done":true,"done_reason":"stop","total_duration":5191566416,` +
		`"load_duration":2154458,"prompt_eval_count":26,"prompt_eval_duration":383809000,"eval_count":298,` +
		`"eval_duration":4799921000}`
	refusal = `{"error":{"message":"The model 'x' does not exist","type":"invalid_request_error","param":null,` +
		`"code":"model_not_found"}}`
)

var samples = map[string]struct {
	kind              Kind
	request, response string
	want              Exchange
}{
	"chat": {OpenAIChat, chatRequest, chatResponse, Exchange{
		RequestModel: "gpt-4o", ResponseModel: "gpt-4o-2024-08-06", ResponseID: "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
		FinishReasons: []string{"stop"}, InputTokens: 19, OutputTokens: 10,
	}},
	"chat as a stream": {OpenAIChat, `{"stream":true,"model":"gpt-4o-mini"}`, chatStream, Exchange{
		RequestModel: "gpt-4o-mini", Stream: true, ResponseModel: "gpt-4o-mini", ResponseID: "chatcmpl-123",
		FinishReasons: []string{"stop"}, InputTokens: 9, OutputTokens: 12,
	}},
	"completion": {OpenAICompletion, `{"model":"VAR_model_id","prompt":"x","n":2}`, completionResponse, Exchange{
		RequestModel: "VAR_model_id", ResponseModel: "VAR_model_id", ResponseID: "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
		FinishReasons: []string{"length", "stop"}, InputTokens: 5, OutputTokens: 7,
	}},
	"embeddings": {OpenAIEmbeddings, `{"input":"x","model":"text-embedding-ada-002"}`, embeddingsResponse, Exchange{
		RequestModel: "text-embedding-ada-002", ResponseModel: "text-embedding-ada-002", InputTokens: 8, OutputTokens: -1,
	}},
	"generate": {OllamaGenerate, generateRequest, generateStream, Exchange{
		RequestModel: "llama3.2", Stream: true, ResponseModel: "llama3.2", FinishReasons: []string{"stop"},
		InputTokens: 26, OutputTokens: 259,
	}},
	"Ollama's chat": {OllamaChat, `{"model":"llama3.2","messages":[],"stream":false}`, ollamaChatResponse, Exchange{
		RequestModel: "llama3.2", ResponseModel: "llama3.2", FinishReasons: []string{"stop"},
		InputTokens: 26, OutputTokens: 298,
	}},
	"refusal": {OpenAIChat, `{"model":"x"}`, refusal, Exchange{RequestModel: "x", InputTokens: -1, OutputTokens: -1}},
	"error that is no JSON": {OpenAIChat, `{"model":"x"}`, "upstream connect error", Exchange{
		RequestModel: "x", InputTokens: -1, OutputTokens: -1,
	}},
	"compressed":       {OpenAIChat, "\x1f\x8b\x08", "\x1f\x8b\x08\x00\x01", Exchange{InputTokens: -1, OutputTokens: -1}},
	"nothing captured": {OpenAIChat, "", "", Exchange{InputTokens: -1, OutputTokens: -1}},
}

func TestRead(t *testing.T) {
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) {
			for framing, framed := range map[string]string{"plain": sample.response, "chunked": chunked(sample.response, 50)} {
				got, ok := Read(sample.kind, Bodies{
					Request: []byte(sample.request), Response: []byte(framed), ResponseEnd: []byte(framed), Whole: true,
				})
				require.True(t, ok)
				want := sample.want
				want.Kind = sample.kind
				assert.Equal(t, &want, got, framing)
			}
		})
	}
}

// chunked frames a body in chunks of so many bytes.
func chunked(body string, size int) string {
	var framed strings.Builder
	for body != "" {
		part := body[:min(size, len(body))]
		body = body[len(part):]
		fmt.Fprintf(&framed, "%x\r\n%s\r\n", len(part), part)
	}
	return framed.String() + "0\r\n\r\n"
}

// Wherever the bytes are cut, what is told is true; nothing of what the texts say is.
func TestCutAnywhere(t *testing.T) {
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) {
			for _, framed := range []string{sample.response, chunked(sample.response, 7), chunked(sample.response, 300)} {
				for cutAt := range len(framed) + 1 {
					first, last := framed[:cutAt], framed[len(framed)-cutAt:]
					for _, bodies := range []Bodies{
						{Response: []byte(first), ResponseEnd: []byte(last), Whole: true},
						{Response: []byte(framed[:min(len(framed), 120)]), ResponseEnd: []byte(last), Whole: true},
						{Response: []byte(first), ResponseEnd: []byte(first)},
						{ResponseEnd: []byte(last), Whole: true},
					} {
						got, ok := Read(sample.kind, bodies)
						if !ok {
							require.True(t, sample.kind.ollama())
							continue
						}
						requireUnknownOr(t, sample.want, got, bodies)
					}
				}
			}
			for cutAt := range len(sample.request) + 1 {
				got, ok := Read(sample.kind, Bodies{Request: []byte(sample.request[:cutAt]), Response: []byte(sample.response)})
				require.True(t, ok)
				assert.Contains(t, []string{"", sample.want.RequestModel}, got.RequestModel)
			}
		})
	}
}

func requireUnknownOr(t *testing.T, want Exchange, got *Exchange, bodies Bodies) {
	t.Helper()
	about := fmt.Sprintf("%q\n%q", bodies.Response, bodies.ResponseEnd)
	require.Contains(t, []string{"", want.ResponseModel}, got.ResponseModel, about)
	require.Contains(t, []string{"", want.ResponseID}, got.ResponseID, about)
	require.Contains(t, []int64{-1, want.InputTokens}, got.InputTokens, about)
	require.Contains(t, []int64{-1, want.OutputTokens}, got.OutputTokens, about)
	for _, reason := range got.FinishReasons {
		require.Contains(t, want.FinishReasons, reason, about)
	}
}

// Long answers: what is in the middle was not captured.
func TestFirstAndLastBytes(t *testing.T) {
	const captured = 4096
	text := strings.Repeat(`so it says: \"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2},\"done\":true}\\ `, 500)
	bodies := func(response string) Bodies {
		return Bodies{
			Response: []byte(response[:captured]), ResponseEnd: []byte(response[len(response)-captured:]), Whole: true,
		}
	}
	response := strings.Replace(chatResponse, "Hello!", text, 1)
	for _, framed := range []string{response, chunked(response, 1500), chunked(response, 1<<20)} {
		got, ok := Read(OpenAIChat, bodies(framed))
		require.True(t, ok)
		assert.Equal(t, "gpt-4o-2024-08-06", got.ResponseModel)
		assert.EqualValues(t, 19, got.InputTokens)
		assert.EqualValues(t, 10, got.OutputTokens)
		assert.Empty(t, got.FinishReasons, "it cannot be told that they are those of choices")
	}

	event := `data: {"id":"chatcmpl-123","model":"gpt-4o-mini",` +
		`"choices":[{"index":0,"delta":{"content":"and"}}]}` + "\n\n"
	stream := strings.Repeat(event, 100) + chatStream
	for _, framed := range []string{stream, chunked(stream, len(event)), chunked(stream, 1000)} {
		got, ok := Read(OpenAIChat, bodies(framed))
		require.True(t, ok)
		assert.EqualValues(t, 9, got.InputTokens)
		assert.EqualValues(t, 12, got.OutputTokens)
		assert.Equal(t, []string{"stop"}, got.FinishReasons)
		assert.True(t, got.Stream)
	}

	line := `{"model":"llama3.2","created_at":"2023-08-04T08:52:19.385406455-07:00","response":"The","done":false}` + "\n"
	for _, response := range []string{
		strings.Repeat(line, 100) + generateStream,
		strings.Replace(ollamaChatResponse, "Hello!", text, 1),
	} {
		got, ok := Read(OllamaChat, bodies(response))
		require.True(t, ok)
		assert.Equal(t, "llama3.2", got.ResponseModel)
		assert.EqualValues(t, 26, got.InputTokens)
		assert.Positive(t, got.OutputTokens)
		assert.Equal(t, []string{"stop"}, got.FinishReasons)
	}
}

// A usage in every event tells what has been made so far.
func TestAStreamThatWasCutHasNoUsage(t *testing.T) {
	event := `data: {"id":"1","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}` + "\n\n"
	stream := fmt.Sprintf(event, 1) + fmt.Sprintf(event, 2) + fmt.Sprintf(event, 3)
	got, _ := Read(OpenAIChat, Bodies{Response: []byte(stream), ResponseEnd: []byte(stream)})
	assert.EqualValues(t, -1, got.OutputTokens)
	for _, end := range []string{"", "data: [DONE]\n\n"} {
		got, _ = Read(OpenAIChat, Bodies{Response: []byte(stream + end), ResponseEnd: []byte(stream + end), Whole: true})
		assert.EqualValues(t, 3, got.OutputTokens)
	}
}

func TestRequestModel(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"a"}`:      "a",
		` { "model" : "a" ,`: "a",
		`{"messages":[{"model":"b"}],"tools":{"model":"c"},"model":"a"}`: "a",
		`{"prompt":"\\\"model\":\"b\"","model":"a"}`:                     "a",
		`{"model":"meta\/llama\u002d3"}`:                                 "meta/llama-3",
		"5\r\n{\"mod\r\n10\r\nel\":\"a\",\"n\":1   \r\n0\r\n\r\n":        "a",
		`{"model":7}`:                    "",
		`{"model":null}`:                 "",
		`{"model":["a"]}`:                "",
		`{"model":"a`:                    "",
		`{"prompt":"x","model":`:         "",
		`["model","a"]`:                  "",
		`"model":"a"`:                    "",
		`{"x" "model":"a"}`:              "",
		"{\"x\":\"\n\",\"model\":\"a\"}": "",
		`{"model":"a",}}`:                "",
		`{"model":"` + strings.Repeat("a", maxName+1) + `"}`: "",
		`{"x":` + strings.Repeat("[", maxDepth+1):            "",
		``: "",
	} {
		got, ok := Read(OpenAIChat, Bodies{Request: []byte(body)})
		require.True(t, ok)
		assert.Equal(t, want, got.RequestModel, body)
	}
}

// /api/chat is a path that anybody may have.
func TestWhatIsNotOllama(t *testing.T) {
	for _, response := range []string{
		"", `{"messages":[]}`, `{"done":true}`, `{"model":"m"}`, `{"response":"\"done\":true","model":"m"}`,
		"data: {\"model\":\"m\",\"done\":true}\n\n", "<html>", refusal,
	} {
		_, ok := Read(OllamaChat, Bodies{
			Request: []byte(`{"model":"m"}`), Response: []byte(response), ResponseEnd: []byte(response), Whole: true,
		})
		assert.False(t, ok, response)
	}
}

func TestStream(t *testing.T) {
	for _, test := range []struct {
		kind              Kind
		request, response string
		want              bool
	}{
		{OpenAIChat, `{"stream":true}`, "", true},
		{OpenAIChat, `{"stream":false}`, "", false},
		{OpenAIChat, `{"messages":[{"stream":true}]}`, "", false},
		{OpenAIChat, `{"messages":["`, "data: {}\n\n", true},
		{OpenAIChat, `{"stream":true}`, refusal, false},
		{OllamaChat, `{}`, generateStream, true},
		{OllamaChat, `{}`, ollamaChatResponse, false},
		{OllamaChat, `{}`, ollamaChatResponse[:len(ollamaChatResponse)-1], true}, // by default
		{OllamaChat, `{"stream":false}`, ollamaChatResponse[:len(ollamaChatResponse)-1], false},
	} {
		got, ok := Read(test.kind, Bodies{Request: []byte(test.request), Response: []byte(test.response)})
		require.True(t, ok)
		assert.Equal(t, test.want, got.Stream, "%s %s", test.request, test.response)
	}
}

// Where the last bytes have all of usage, it is told, wherever they begin in the text before.
func TestUsageIsFound(t *testing.T) {
	response := `{"model":"m","id":"1","choices":[{"index":0,"message":{"content":"\"\\\" \\\\ \\\\\\\" {[\\"},` +
		`"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":3,"completion_tokens":4}}`
	for begin := 13; begin < strings.Index(response, `,"usage"`); begin++ {
		for _, framed := range []string{response, chunked(response, 16)} {
			end := framed[len(framed)-(len(response)-begin):]
			got, ok := Read(OpenAIChat, Bodies{Response: []byte(response[:13]), ResponseEnd: []byte(end), Whole: true})
			require.True(t, ok)
			if framed == response {
				require.EqualValues(t, 3, got.InputTokens, end)
				require.EqualValues(t, 4, got.OutputTokens, end)
			}
			require.Contains(t, []int64{-1, 3}, got.InputTokens, end)
		}
	}
}

func TestWhatIsNotCertainIsNotTold(t *testing.T) {
	for name, bodies := range map[string]Bodies{
		"the end of a part": {
			Response: []byte(`{"x":{"usage":{"prompt_tokens":1}`), ResponseEnd: []byte(`{"x":{"usage":{"prompt_tokens":1}}`),
		},
		"malformed after it":  {Response: []byte(`{"usage":{"prompt_tokens":1},}`)},
		"malformed before it": {Response: []byte(`{"x":`), ResponseEnd: []byte(`"a"b,"usage":{"prompt_tokens":1}}`), Whole: true},
		"malformed event":     {Response: []byte("data: {\"usage\":{\"prompt_tokens\":1},}\n\ndata: [DONE]\n\n")},
		"name with escapes":   {Response: []byte(`{"us\u0061ge":{"prompt_tokens":1}}`)},
		"no number":           {Response: []byte(`{"usage":{"prompt_tokens":"1"}}`)},
		"no integer":          {Response: []byte(`{"usage":{"prompt_tokens":1.5}}`)},
		"negative":            {Response: []byte(`{"usage":{"prompt_tokens":-1}}`)},
		"too large":           {Response: []byte(`{"usage":{"prompt_tokens":99999999999999999999}}`)},
		"no object":           {Response: []byte(`{"usage":[1]}`)},
		"deeper":              {Response: []byte(`{"x_groq":{"usage":{"prompt_tokens":1}}}`)},
		"only the end":        {ResponseEnd: []byte(`,"usage":{"prompt_tokens":1}}`), Whole: true},
	} {
		got, ok := Read(OpenAIChat, bodies)
		require.True(t, ok)
		assert.EqualValues(t, -1, got.InputTokens, name)
	}
}
