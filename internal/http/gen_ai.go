//go:build linux

package http

import (
	"strings"
	"time"

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

// genAIKey is what distinguishes the series of generative AI of all workloads.
type genAIKey struct {
	resource                    string
	role                        Role
	measure                     measure
	operation, provider         string
	requestModel, responseModel string
	errorType                   string   // a value of error.type
	server                      endpoint // of a client
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
	return genai.Provider(e.facts().server.host)
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
func (e *Exchange) describeGenAI(attributes *attributeList) {
	g := e.GenAI
	attributes.putKnown(attrGenAIOperation, g.Kind.Name())
	attributes.putKnown(attrGenAIProvider, e.provider())
	attributes.putText(attrGenAIRequestModel, g.RequestModel)
	if g.Stream {
		attributes.putTrue(attrGenAIStream)
	}
	attributes.putText(attrGenAIResponseModel, g.ResponseModel)
	attributes.putText(attrGenAIResponseID, g.ResponseID)
	if len(g.FinishReasons) > 0 {
		attributes.putTexts(attrGenAIFinishReasons, g.FinishReasons)
	}
	if g.InputTokens >= 0 {
		attributes.putInt(attrGenAIInputTokens, g.InputTokens)
	}
	if g.OutputTokens >= 0 {
		attributes.putInt(attrGenAIOutputTokens, g.OutputTokens)
	}
	if delay, ok := e.timeToFirstChunk(); ok && e.Role == RoleClient { // it is what the client waits
		attributes.putDouble(attrGenAIFirstChunk, delay.Seconds())
	}
}

// addGenAI accounts for one exchange with a model server that ended at a time. Tokens are counted at the client's end
// alone, as the conventions have it, so an exchange within the host is counted once.
func (a *aggregation) addGenAI(e *Exchange, id identity, at time.Time) {
	key := genAIKey{
		resource: e.Owner.ResourceKey(), role: e.Role,
		operation: e.GenAI.Kind.Name(), provider: e.provider(), responseModel: e.GenAI.ResponseModel,
	}
	if e.Role == RoleClient {
		key.server = e.facts().server
	}
	// What a server refuses may name any model: it would be a series of each.
	if e.Role == RoleClient || e.Status < 400 {
		key.requestModel = e.GenAI.RequestModel
	}
	observe := func(m measure, value float64) {
		key.measure = m
		s := a.findGenAI(key, e, at)
		if at.After(s.lastUsed) {
			s.lastUsed = at
		}
		s.duration.Observe(value)
		s.keep(value, id, at)
	}
	if delay, ok := e.timeToFirstChunk(); ok {
		observe(genAIFirstChunk, delay.Seconds())
	}
	if e.Role == RoleClient && e.GenAI.InputTokens >= 0 {
		observe(genAIInputTokens, float64(e.GenAI.InputTokens))
	}
	if e.Role == RoleClient && e.GenAI.OutputTokens >= 0 {
		observe(genAIOutputTokens, float64(e.GenAI.OutputTokens))
	}
	key.errorType = e.errorType() // of durations alone
	observe(genAIDuration, e.duration().Seconds())
}

// findGenAI gives the series of a key, which is made if there is room for it.
func (a *aggregation) findGenAI(key genAIKey, e *Exchange, at time.Time) *series {
	if s := a.genAI[key]; s != nil {
		return s
	}
	if a.full() {
		a.overflowed++
		return a.overflowOf(seriesKey{role: key.role}, key.measure.metric(), at)
	}
	// As in find.
	key.requestModel = strings.Clone(key.requestModel)
	key.responseModel = strings.Clone(key.responseModel)
	key.errorType = strings.Clone(key.errorType)
	key.server.host = strings.Clone(key.server.host)

	s := a.newSeries(seriesKey{role: key.role}, key.measure, at)
	s.genAI = key
	key.describe(s.attributes)
	a.genAI[key] = s
	a.group(e.Owner, s)
	return s
}

// bounds are the upper bounds of the buckets of what is measured at one end, as the semantic conventions advise.
func (m measure) bounds(role Role) []float64 {
	switch {
	case m == ofExchange:
		return durationBounds
	case m.tokenType() != "":
		return []float64{
			1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
		}
	case m == genAIFirstChunk && role == RoleServer:
		return []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
	}
	return []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
}

// describe writes the attributes of a series.
func (key *genAIKey) describe(attributes pcommon.Map) {
	putText(attributes, attrGenAIOperation, key.operation)
	putText(attributes, attrGenAIProvider, key.provider)
	putText(attributes, attrGenAITokenType, key.measure.tokenType())
	putText(attributes, attrGenAIRequestModel, key.requestModel)
	putText(attributes, attrGenAIResponseModel, key.responseModel)
	putText(attributes, attrErrorType, key.errorType)
	putServer(attributes, key.server)
}
