//go:build linux

package http

import (
	"time"
	"unique"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http/genai"
)

// measure is what a series measures.
type measure uint8

// What is measured.
const (
	ofExchange       measure = iota // duration and sizes, as HTTP or RPC
	genAIDuration                   // s
	genAIFirstChunk                 // s
	genAIInputTokens                // of which there is one metric with the next one
	genAIOutputTokens
)

// metric is the measure that stands for the metric of a series.
func (m measure) metric() measure {
	if m == genAIOutputTokens {
		return genAIInputTokens
	}
	return m
}

// tokenType is the value of gen_ai.token.type, empty where it has none.
func (m measure) tokenType() string {
	switch m {
	case genAIInputTokens:
		return "input"
	case genAIOutputTokens:
		return "output"
	}
	return ""
}

// genAILabels are what distinguishes the series of metrics of generative AI, besides what all have.
type genAILabels struct {
	operation, provider         string
	requestModel, responseModel string
	errorType                   string // a value of error.type
}

// timeToFirstChunk is from the first byte of the request to that of the body of the response, of a stream without an
// error whose time is known.
func (e *Exchange) timeToFirstChunk() (time.Duration, bool) {
	if !e.GenAI.Stream || e.GenAI.FirstChunkNs < max(e.StartNs, 1) || e.failed() || e.Status >= 400 {
		return 0, false
	}
	return time.Duration(e.GenAI.FirstChunkNs - e.StartNs), true
}

// provider is the value of gen_ai.provider.name, empty where it is not known: many servers speak the API of OpenAI, and what
// they are called is the caller's choice.
func (e *Exchange) provider() string {
	if e.Role != RoleClient {
		return ""
	}
	return genai.Provider(e.server().host)
}

// genAISpanName is "{operation} {model}" (semantic conventions for generative AI client spans), or the operation alone.
func (e *Exchange) genAISpanName() string {
	name := e.GenAI.Kind.Name()
	if e.GenAI.RequestModel == "" {
		return name
	}
	return name + " " + validText(e.GenAI.RequestModel)
}

// describeGenAI writes what the semantic conventions for spans of generative AI (in development) have.
func (e *Exchange) describeGenAI(attributes pcommon.Map) {
	g := e.GenAI
	putText(attributes, attrGenAIOperation, g.Kind.Name())
	putText(attributes, attrGenAIProvider, e.provider())
	putText(attributes, attrGenAIRequestModel, g.RequestModel)
	if g.Stream {
		attributes.PutBool(attrGenAIStream, true)
	}
	putText(attributes, attrGenAIResponseModel, g.ResponseModel)
	putText(attributes, attrGenAIResponseID, g.ResponseID)
	if len(g.FinishReasons) > 0 {
		reasons := attributes.PutEmptySlice(attrGenAIFinishReasons)
		for _, reason := range g.FinishReasons {
			reasons.AppendEmpty().SetStr(validText(reason))
		}
	}
	if g.InputTokens >= 0 {
		attributes.PutInt(attrGenAIInputTokens, g.InputTokens)
	}
	if g.OutputTokens >= 0 {
		attributes.PutInt(attrGenAIOutputTokens, g.OutputTokens)
	}
	if delay, ok := e.timeToFirstChunk(); ok && e.Role == RoleClient { // it is what the client waits
		attributes.PutDouble(attrGenAIFirstChunk, delay.Seconds())
	}
}

// addGenAI accounts for one exchange with a model server that ended at a time. Tokens are counted at the client's end
// alone, as the conventions have it, so an exchange within the host is counted once.
func (a *aggregation) addGenAI(e *Exchange, id identity, at time.Time) {
	labels := genAILabels{operation: e.GenAI.Kind.Name(), provider: e.provider(), responseModel: e.GenAI.ResponseModel}
	// What a server refuses may name any model: it would be a series of each.
	if e.Role == RoleClient || e.Status < 400 {
		labels.requestModel = e.GenAI.RequestModel
	}
	observe := func(m measure, value float64, labels genAILabels) {
		key := seriesKey{resource: e.Owner.ResourceKey(), role: e.Role, measure: m, genAI: unique.Make(labels)}
		if e.Role == RoleClient {
			key.server = e.server()
		}
		s := a.seriesOf(key, e.Owner, at)
		if at.After(s.lastUsed) {
			s.lastUsed = at
		}
		s.duration.Observe(value)
		s.keep(exemplar{seconds: value, at: at, trace: id.trace, span: id.span}, id.sampled)
	}
	if delay, ok := e.timeToFirstChunk(); ok {
		observe(genAIFirstChunk, delay.Seconds(), labels)
	}
	if e.Role == RoleClient && e.GenAI.InputTokens >= 0 {
		observe(genAIInputTokens, float64(e.GenAI.InputTokens), labels)
	}
	if e.Role == RoleClient && e.GenAI.OutputTokens >= 0 {
		observe(genAIOutputTokens, float64(e.GenAI.OutputTokens), labels)
	}
	labels.errorType = e.errorType()
	observe(genAIDuration, e.duration().Seconds(), labels)
}

// overflow is the key of the series that takes what finds no place under a key: one of each metric.
func (key *seriesKey) overflow() seriesKey {
	return seriesKey{role: key.role, grpc: key.grpc, measure: key.measure.metric()}
}

// bounds are the upper bounds of the buckets of what a series measures, as the semantic conventions advise.
func (key *seriesKey) bounds() []float64 {
	switch {
	case key.measure == ofExchange:
		return durationBounds
	case key.measure.tokenType() != "":
		return []float64{
			1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
		}
	case key.measure == genAIFirstChunk && key.role == RoleServer:
		return []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
	}
	return []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
}

// describeGenAI writes the attributes of a series of generative AI.
func (key *seriesKey) describeGenAI(attributes pcommon.Map) {
	labels := key.genAI.Value()
	putText(attributes, attrGenAIOperation, labels.operation)
	putText(attributes, attrGenAIProvider, labels.provider)
	putText(attributes, attrGenAITokenType, key.measure.tokenType())
	putText(attributes, attrGenAIRequestModel, labels.requestModel)
	putText(attributes, attrGenAIResponseModel, labels.responseModel)
	putText(attributes, attrErrorType, labels.errorType)
	key.server.describe(attributes)
}
