//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever a span says that the programs do not is a difference.
func TestCompareMixed(t *testing.T) {
	const path = "/mixed/1"
	made := func(change func(w *mixedWindow, client, server *keptSpan)) *mixedComparison {
		record := mixedRecord{Program: mixedGo, Method: "POST", Path: path, Port: mixedGoPort, Status: 404, Version: "1.1"}
		asked, answered := record, record
		asked.SentBytes, asked.ReceivedBytes = 3, 5
		answered.SentBytes, answered.ReceivedBytes = 5, 3
		span := keptSpan{Port: mixedGoPort, Method: "POST", Status: 404, Version: "1.1", RequestBytes: 3, ResponseBytes: 5}
		client, server := span, span
		client.Role, client.URL, client.Error = "client", "http://127.0.0.1:8082"+path, "404"
		server.Role, server.URL = "server", path
		w := &mixedWindow{client: mixedResult{Records: []mixedRecord{asked}}, server: []mixedRecord{answered}}
		w.totals.Exchanges = exchangeCounts{"client": {"POST 404": 1}, "server": {"POST 404": 1}}
		change(w, &client, &server)
		w.totals.Kept = append(w.totals.Kept, client, server)
		return compareMixed(w)
	}
	for name, test := range map[string]struct {
		change      func(w *mixedWindow, client, server *keptSpan)
		differences int
		missing     int
		disagreeing int
	}{
		"none":       {func(*mixedWindow, *keptSpan, *keptSpan) {}, 0, 0, 0},
		"method":     {func(_ *mixedWindow, client, _ *keptSpan) { client.Method = "GET" }, 1, 0, 0},
		"status":     {func(_ *mixedWindow, _, server *keptSpan) { server.Status = 200 }, 1, 0, 0},
		"version":    {func(_ *mixedWindow, _, server *keptSpan) { server.Version = "2" }, 1, 0, 0},
		"error":      {func(_ *mixedWindow, _, server *keptSpan) { server.Error = "404" }, 1, 0, 0},
		"size":       {func(_ *mixedWindow, client, _ *keptSpan) { client.ResponseBytes = 6 }, 1, 0, 0},
		"no size":    {func(_ *mixedWindow, client, _ *keptSpan) { client.RequestBytes = -1 }, 1, 0, 0},
		"other path": {func(_ *mixedWindow, client, _ *keptSpan) { client.URL += "1" }, 2, 1, 0},
		"other port": {func(_ *mixedWindow, _, server *keptSpan) { server.Port++ }, 2, 1, 0},
		"other role": {func(_ *mixedWindow, _, server *keptSpan) { server.Role = "client" }, 5, 1, 0},
		"twice": {func(w *mixedWindow, client, _ *keptSpan) {
			w.totals.Kept = append(w.totals.Kept, *client)
		}, 2, 0, 0}, // the metrics do not have it twice
		"metrics":   {func(w *mixedWindow, _, _ *keptSpan) { w.totals.Exchanges["client"]["GET 200"]++ }, 1, 0, 0},
		"programs":  {func(w *mixedWindow, _, _ *keptSpan) { w.server[0].Status = 200 }, 1, 0, 1},
		"no answer": {func(w *mixedWindow, _, _ *keptSpan) { w.server = nil }, 1, 0, 1},
		"chunked": {func(w *mixedWindow, _, server *keptSpan) {
			w.server[0].ChunkedRequest, server.RequestBytes = true, -1
		}, 0, 0, 0},
		"chunked, wrong": {func(w *mixedWindow, _, server *keptSpan) {
			w.server[0].ChunkedRequest, server.RequestBytes = true, 4
		}, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			found := made(test.change)
			assert.Len(t, found.differences[false], test.differences, "%v", found.differences)
			assert.Equal(t, test.missing, found.missing[false])
			assert.Len(t, found.disagreeing, test.disagreeing)
		})
	}
}

func TestPlanMixed(t *testing.T) {
	const count = 5000
	plan := planMixed(mixedOrder{Count: count, Seed: 1})
	assert.Equal(t, plan, planMixed(mixedOrder{Count: count, Seed: 1}), "the seed decides")
	paths, pairs := map[string]bool{}, map[string]bool{}
	for client, requests := range plan {
		for _, request := range requests {
			paths[request.Path] = true
			pairs[client+" to "+mixedServers()[request.Port]] = true
			if !request.hasBody() {
				require.Zero(t, request.Size)
				require.False(t, request.Chunked)
			}
		}
	}
	assert.Len(t, paths, count, "each request has a path of its own")
	assert.Len(t, pairs, 5*4, "each client asks each server")
}
