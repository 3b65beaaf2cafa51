//go:build linux

package http

import (
	"fmt"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/genai"
)

// exampleChat is an ordinary request to a model server, answered by a stream that begins after 25 ms.
func exampleChat(t testing.TB, role Role, changes ...func(*Exchange)) *Exchange {
	t.Helper()
	e := exampleExchange(t, role)
	e.Target, e.Host, e.Status, e.ResponseBodyBytes = "/v1/chat/completions", "models.example:8080", 200, -1
	e.GenAI = &genai.Exchange{
		Kind: genai.OpenAIChat, RequestModel: "gpt-4o", Stream: true, ResponseModel: "gpt-4o-2024-08-06",
		ResponseID: "chatcmpl-123", FinishReasons: []string{"stop"}, InputTokens: 19, OutputTokens: 10,
		FirstChunkNs: 1_025_000_000,
	}
	for _, change := range changes {
		change(e)
	}
	return e
}

func TestGenAISpans(t *testing.T) {
	client := spanOf(t, exampleChat(t, RoleClient))
	assert.Equal(t, "chat gpt-4o", client.Name())
	attributes := client.Attributes().AsRaw()
	for key, want := range map[string]any{
		attrGenAIOperation: "chat", attrGenAIRequestModel: "gpt-4o", attrGenAIResponseModel: "gpt-4o-2024-08-06",
		attrGenAIResponseID: "chatcmpl-123", attrGenAIFinishReasons: []any{"stop"}, attrGenAIInputTokens: int64(19),
		attrGenAIOutputTokens: int64(10), attrGenAIStream: true, attrGenAIFirstChunk: 0.025, attrMethod: "POST",
	} {
		assert.Equal(t, want, attributes[key], key)
	}
	assert.NotContains(t, attributes, attrGenAIProvider, "many servers speak this API")

	server := spanOf(t, exampleChat(t, RoleServer, func(e *Exchange) { e.Host = "api.openai.com" }))
	assert.Equal(t, "POST "+exampleRoute, server.Name(), "the conventions for generative AI have clients only")
	assert.Equal(t, "gpt-4o", server.Attributes().AsRaw()[attrGenAIRequestModel])
	assert.NotContains(t, server.Attributes().AsRaw(), attrGenAIFirstChunk)
	assert.NotContains(t, server.Attributes().AsRaw(), attrGenAIProvider, "the caller says so")

	called := spanOf(t, exampleChat(t, RoleClient, func(e *Exchange) { e.Host = "api.openai.com" })).Attributes().AsRaw()
	assert.Equal(t, "openai", called[attrGenAIProvider])

	unknown := spanOf(t, exampleChat(t, RoleClient, func(e *Exchange) {
		e.GenAI = &genai.Exchange{Kind: genai.OpenAIEmbeddings, InputTokens: -1, OutputTokens: -1}
	}))
	assert.Equal(t, "embeddings", unknown.Name())
	for key := range unknown.Attributes().All() {
		if key != attrGenAIOperation {
			assert.NotContains(t, key, "gen_ai.", "what is not known is not written")
		}
	}
}

func TestTimeToFirstChunk(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Exchange)
		ok     bool
	}{
		"stream":            {func(*Exchange) {}, true},
		"no stream":         {func(e *Exchange) { e.GenAI.Stream = false }, false},
		"not known":         {func(e *Exchange) { e.GenAI.FirstChunkNs = 0 }, false},
		"not known at all":  {func(e *Exchange) { e.GenAI.FirstChunkNs, e.StartNs = 0, 0 }, false},
		"before the start":  {func(e *Exchange) { e.GenAI.FirstChunkNs = e.StartNs - 1 }, false},
		"refused":           {func(e *Exchange) { e.Status = 429 }, false},
		"connection broken": {func(e *Exchange) { e.ErrorType = "ECONNRESET" }, false},
	} {
		delay, ok := exampleChat(t, RoleServer, test.change).timeToFirstChunk()
		assert.Equal(t, test.ok, ok, name)
		if ok {
			assert.Equal(t, 25*time.Millisecond, delay)
		}
	}
}

func TestGenAIMetrics(t *testing.T) {
	a := exampleAggregation(100, false)
	at := exampleStart
	for _, role := range []Role{RoleServer, RoleClient} {
		a.add(exampleChat(t, role), exampleRoute, identity{sampled: true}, at)
		a.add(exampleChat(t, role, func(e *Exchange) { e.GenAI.RequestModel, e.Status = "no such model", 404 }),
			exampleRoute, identity{}, at)
	}
	metrics := a.flush(at, exampleScope)
	const host, port = "models.example", int64(8080)
	for name, want := range map[string][]map[string]any{
		MetricGenAIServerDuration: {
			{attrGenAIOperation: "chat", attrGenAIRequestModel: "gpt-4o", attrGenAIResponseModel: "gpt-4o-2024-08-06"},
			{attrGenAIOperation: "chat", attrGenAIResponseModel: "gpt-4o-2024-08-06"},
		},
		MetricGenAIServerFirstToken: {
			{attrGenAIOperation: "chat", attrGenAIRequestModel: "gpt-4o", attrGenAIResponseModel: "gpt-4o-2024-08-06"},
		},
		MetricGenAIClientDuration: {
			{attrGenAIOperation: "chat", attrGenAIRequestModel: "gpt-4o", attrGenAIResponseModel: "gpt-4o-2024-08-06",
				attrServerAddress: host, attrServerPort: port},
			{attrGenAIOperation: "chat", attrGenAIRequestModel: "no such model", attrErrorType: "404",
				attrGenAIResponseModel: "gpt-4o-2024-08-06", attrServerAddress: host, attrServerPort: port},
		},
		MetricGenAIClientFirstChunk: {
			{attrGenAIOperation: "chat", attrGenAIRequestModel: "gpt-4o", attrGenAIResponseModel: "gpt-4o-2024-08-06",
				attrServerAddress: host, attrServerPort: port},
		},
	} {
		var got []map[string]any
		for _, point := range pointsOf(metrics, name) {
			got = append(got, point.Attributes().AsRaw())
			assert.EqualValues(t, 1, point.Count())
		}
		assert.ElementsMatch(t, want, got, name)
	}

	tokens := map[any]float64{}
	for _, point := range pointsOf(metrics, MetricGenAIClientTokens) {
		tokens[point.Attributes().AsRaw()[attrGenAITokenType]] += point.Sum()
		assert.Equal(t, 1.0, point.ExplicitBounds().At(0))
		assert.Equal(t, 67108864.0, point.ExplicitBounds().At(13))
	}
	assert.Equal(t, map[any]float64{"input": 38, "output": 20}, tokens, "of the clients alone")

	for name, want := range map[string]float64{
		MetricGenAIServerFirstToken: .025, MetricGenAIClientFirstChunk: .025,
		MetricGenAIServerDuration: .03, MetricGenAIClientDuration: .03,
	} {
		assert.InDelta(t, want, pointsOf(metrics, name)[0].Sum(), 1e-9, name)
		assert.Equal(t, 1, pointsOf(metrics, name)[0].Exemplars().Len(), name)
	}
	assert.Equal(t, 10.0, pointsOf(metrics, MetricGenAIServerFirstToken)[0].ExplicitBounds().At(15))
	assert.Equal(t, 81.92, pointsOf(metrics, MetricGenAIServerDuration)[0].ExplicitBounds().At(13))

	requests := uint64(0)
	for _, point := range pointsOf(metrics, MetricServerRequestDuration) {
		requests += point.Count()
	}
	assert.EqualValues(t, 2, requests, "they are requests of HTTP, too")
}

// The names of models are the callers' choice.
func TestModelsAreBounded(t *testing.T) {
	const maxSeries, models = 20, 100
	a := exampleAggregation(maxSeries, false)
	for i := range models {
		a.add(exampleChat(t, RoleClient, func(e *Exchange) { e.GenAI.RequestModel = fmt.Sprintf("m%d\xff", i) }),
			"", identity{}, exampleStart)
	}
	assert.Equal(t, maxSeries, len(a.series)+len(a.genAI))
	metrics := a.flush(exampleStart, exampleScope)
	for name, want := range map[string]uint64{
		MetricGenAIClientDuration: models, MetricGenAIClientFirstChunk: models, MetricGenAIClientTokens: 2 * models,
	} {
		count, overflows := uint64(0), 0
		for _, point := range pointsOf(metrics, name) {
			count += point.Count()
			if _, ok := point.Attributes().Get(attrOverflow); ok {
				overflows++
				assert.Equal(t, 1, point.Attributes().Len())
			}
			for key, value := range point.Attributes().All() {
				assert.True(t, utf8.ValidString(value.AsString()), key)
			}
		}
		assert.Equal(t, want, count, name)
		assert.Equal(t, 1, overflows, name)
	}

	refused := exampleAggregation(1000, false)
	for i := range models {
		refused.add(exampleChat(t, RoleServer, func(e *Exchange) {
			e.GenAI = &genai.Exchange{Kind: genai.OpenAIChat, RequestModel: fmt.Sprint(i), InputTokens: -1, OutputTokens: -1}
			e.Status = 404
		}), "", identity{}, exampleStart)
	}
	assert.Len(t, refused.series, 1)
	assert.Len(t, refused.genAI, 1)
}

func TestGenAISeriesAreForgotten(t *testing.T) {
	a := exampleAggregation(10, false)
	a.add(exampleChat(t, RoleClient), "", identity{}, exampleStart)
	require.Len(t, a.genAI, 4)
	a.flush(exampleStart.Add(exampleExpiry), exampleScope)
	assert.Empty(t, a.genAI)
	assert.Empty(t, a.groups)

	a = exampleAggregation(10, true)
	a.add(exampleChat(t, RoleClient), "", identity{}, exampleStart)
	a.flush(exampleStart, exampleScope)
	assert.Empty(t, a.genAI)
}
