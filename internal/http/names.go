package http

import (
	genaiconv "go.opentelemetry.io/otel/semconv/v1.41.0" // the last ones that had gen_ai, which has conventions of its own now
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Metric names, all of the semantic conventions for HTTP, RPC and generative AI. The durations of HTTP are stable, those of
// RPC a release candidate, the others are in development.
const (
	MetricServerRequestDuration  = "http.server.request.duration"
	MetricServerRequestBodySize  = "http.server.request.body.size"
	MetricServerResponseBodySize = "http.server.response.body.size"
	MetricClientRequestDuration  = "http.client.request.duration"
	MetricClientRequestBodySize  = "http.client.request.body.size"
	MetricClientResponseBodySize = "http.client.response.body.size"
	MetricServerCallDuration     = "rpc.server.call.duration"
	MetricClientCallDuration     = "rpc.client.call.duration"
	MetricGenAIServerDuration    = "gen_ai.server.request.duration"
	MetricGenAIServerFirstToken  = "gen_ai.server.time_to_first_token"
	MetricGenAIClientDuration    = "gen_ai.client.operation.duration"
	MetricGenAIClientFirstChunk  = "gen_ai.client.operation.time_to_first_chunk"
	MetricGenAIClientTokens      = "gen_ai.client.token.usage"
)

// Attributes that have a semantic convention.
const (
	attrMethod           = string(semconv.HTTPRequestMethodKey)
	attrMethodOriginal   = string(semconv.HTTPRequestMethodOriginalKey)
	attrRoute            = string(semconv.HTTPRouteKey)
	attrStatusCode       = string(semconv.HTTPResponseStatusCodeKey)
	attrRequestBodySize  = string(semconv.HTTPRequestBodySizeKey)
	attrResponseBodySize = string(semconv.HTTPResponseBodySizeKey)
	attrErrorType        = string(semconv.ErrorTypeKey)
	attrScheme           = string(semconv.URLSchemeKey)
	attrPath             = string(semconv.URLPathKey)
	attrQuery            = string(semconv.URLQueryKey)
	attrFullURL          = string(semconv.URLFullKey)
	attrUserAgent        = string(semconv.UserAgentOriginalKey)
	attrServerAddress    = string(semconv.ServerAddressKey)
	attrServerPort       = string(semconv.ServerPortKey)
	attrClientAddress    = string(semconv.ClientAddressKey)
	attrLocalAddress     = string(semconv.NetworkLocalAddressKey)
	attrLocalPort        = string(semconv.NetworkLocalPortKey)
	attrPeerAddress      = string(semconv.NetworkPeerAddressKey)
	attrPeerPort         = string(semconv.NetworkPeerPortKey)
	attrProtocolName     = string(semconv.NetworkProtocolNameKey)
	attrProtocolVersion  = string(semconv.NetworkProtocolVersionKey)
	attrTransport        = string(semconv.NetworkTransportKey)
	attrPID              = string(semconv.ProcessPIDKey)
	attrRPCSystem        = string(semconv.RPCSystemNameKey)
	attrRPCMethod        = string(semconv.RPCMethodKey)
	attrRPCMethodOther   = string(semconv.RPCMethodOriginalKey)
	attrRPCStatus        = string(semconv.RPCResponseStatusCodeKey) // later conventions call it rpc.status_code

	attrGenAIOperation     = string(genaiconv.GenAIOperationNameKey)
	attrGenAIProvider      = string(genaiconv.GenAIProviderNameKey)
	attrGenAIRequestModel  = string(genaiconv.GenAIRequestModelKey)
	attrGenAIStream        = string(genaiconv.GenAIRequestStreamKey)
	attrGenAIResponseModel = string(genaiconv.GenAIResponseModelKey)
	attrGenAIResponseID    = string(genaiconv.GenAIResponseIDKey)
	attrGenAIFinishReasons = string(genaiconv.GenAIResponseFinishReasonsKey)
	attrGenAIFirstChunk    = string(genaiconv.GenAIResponseTimeToFirstChunkKey)
	attrGenAIInputTokens   = string(genaiconv.GenAIUsageInputTokensKey)
	attrGenAIOutputTokens  = string(genaiconv.GenAIUsageOutputTokensKey)
	attrGenAITokenType     = string(genaiconv.GenAITokenTypeKey)

	attrRequestID = "http.request.header.x-request-id" // of http.request.header.<key>, a list
)

// Attributes of our own, for what no convention names. Those of the connection are called as in the flow records of the
// TCP probe.
const (
	attrTimeToFirstByte = "http.response.time_to_first_byte" // s
	attrSRTT            = "tcp.srtt"                         // s
	attrRetransmits     = "tcp.retransmits"                  // of the whole connection
	attrOverflow        = "otel.metric.overflow"             // of the SDK specification: what did not fit max_series
)

// methodOther is what http.request.method and rpc.method say of a method that is not known.
const methodOther = "_OTHER"

// knownMethod spells a method as http.request.method does: the methods of RFC 9110, PATCH (RFC 5789) and QUERY
// (draft-ietf-httpbis-safe-method-w-body) are known, by their exact, case-sensitive name. The result is a constant, so
// that it does not hold on to the bytes of the request.
func knownMethod(method string) string {
	switch method {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "HEAD":
		return "HEAD"
	case "OPTIONS":
		return "OPTIONS"
	case "PATCH":
		return "PATCH"
	case "CONNECT":
		return "CONNECT"
	case "TRACE":
		return "TRACE"
	case "QUERY":
		return "QUERY"
	default:
		return methodOther
	}
}
