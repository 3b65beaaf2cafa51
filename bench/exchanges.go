//go:build linux

package main

import (
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/ebpfreceiver/ebpfreceiver/internal/http"
)

// exchangeCounts are by role, and by what was asked and answered: "GET 200", "grpc.testing.TestService/EmptyCall OK".
type exchangeCounts map[string]map[string]int

func (c exchangeCounts) add(role, what string, count int) {
	if c[role] == nil {
		c[role] = map[string]int{}
	}
	c[role][what] += count
}

// outcome spells what was asked and answered, of the attributes of a span or a data point.
func outcome(attributes pcommon.Map) string {
	method, status := text(attributes, string(semconv.RPCMethodKey)), text(attributes, string(semconv.RPCResponseStatusCodeKey))
	if original := text(attributes, string(semconv.RPCMethodOriginalKey)); original != "" {
		method = original
	}
	if method == "" {
		method = text(attributes, string(semconv.HTTPRequestMethodKey))
		status = text(attributes, string(semconv.HTTPResponseStatusCodeKey))
	}
	if failure := text(attributes, string(semconv.ErrorTypeKey)); failure != "" && failure != status {
		return method + " " + status + " " + failure
	}
	return method + " " + status
}

// addMetric counts the exchanges of a metric, if it is one of their durations.
func (c exchangeCounts) addMetric(metric pmetric.Metric) bool {
	var role string
	switch metric.Name() {
	case http.MetricServerRequestDuration, http.MetricServerCallDuration:
		role = "server"
	case http.MetricClientRequestDuration, http.MetricClientCallDuration:
		role = "client"
	default:
		return false
	}
	for _, point := range metric.Histogram().DataPoints().All() {
		c.add(role, outcome(point.Attributes()), int(point.Count()))
	}
	return true
}

// spanRole is the role of a span, as exchangeCounts spells it.
func spanRole(span ptrace.Span) string {
	if span.Kind() == ptrace.SpanKindClient {
		return "client"
	}
	return "server"
}

// keptSpan is a span of HTTP, as far as it is compared with what a program has done.
type keptSpan struct {
	Role          string
	Port          int // of the server
	Method        string
	URL           string // url.full of a client, url.path and url.query of a server
	Status        int
	Version       string
	Error         string // error.type
	RequestBytes  int64  // of bodies; -1: not told
	ResponseBytes int64
	Ns            int64
}

func keep(span ptrace.Span) keptSpan {
	attributes := span.Attributes()
	kept := keptSpan{
		Role:          spanRole(span),
		Port:          number(attributes, string(semconv.ServerPortKey)),
		Method:        text(attributes, string(semconv.HTTPRequestMethodKey)),
		URL:           text(attributes, string(semconv.URLFullKey)),
		Version:       text(attributes, string(semconv.NetworkProtocolVersionKey)),
		Error:         text(attributes, string(semconv.ErrorTypeKey)),
		RequestBytes:  size(attributes, string(semconv.HTTPRequestBodySizeKey)),
		ResponseBytes: size(attributes, string(semconv.HTTPResponseBodySizeKey)),
		Ns:            int64(span.EndTimestamp() - span.StartTimestamp()),
	}
	kept.Status, _ = strconv.Atoi(text(attributes, string(semconv.HTTPResponseStatusCodeKey))) // 0: not told
	if kept.URL == "" {
		kept.URL = text(attributes, string(semconv.URLPathKey))
		if query := text(attributes, string(semconv.URLQueryKey)); query != "" {
			kept.URL += "?" + query
		}
	}
	return kept
}

func size(attributes pcommon.Map, key string) int64 {
	value, found := attributes.Get(key)
	if !found {
		return -1
	}
	return value.Int()
}
