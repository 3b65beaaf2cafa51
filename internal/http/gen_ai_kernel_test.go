//go:build linux

package http

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// modelRequests are what is asked of a model server, on one connection: see testdata/programs/models.py.
func modelRequests() []string {
	return []string{
		"/v1/chat/completions",
		"/v1/chat/completions?usage=0",
		"/v1/chat/completions?stream=1",
		"/v1/chat/completions?stream=1&usage=0",
		"/v1/chat/completions?stream=1&words=100",
		"/v1/chat/completions?words=2000",        // many times what is copied
		"/v1/chat/completions?words=2000&once=1", // in one call with the head
		"/v1/chat/completions?words=320&once=1",
		"/v1/chat/completions?words=10000&once=1",
		"/v1/chat/completions?prompt=10000",
		"/v1/chat/completions?prompt=20&model=last",
		"/v1/chat/completions?prompt=10000&model=last&stream=1",
		"/v1/completions?words=7",
		"/v1/embeddings?words=2000&once=1",
		"/v1/embeddings?words=1",
		"/api/chat",
		"/api/chat?words=200&usage=0",
		"/api/generate?stream=0",
		"/api/generate?stream=0&words=1000",
		"/api/generate?words=40",
		"/openai/v1/chat/completions?stream=1",
		"/api/v1/chat/completions?words=2000",
		"/api/v1/completions",
		"/api/v1/embeddings?words=2",
		"/openai/v1/embeddings?words=2",
		"/openai/deployments/small/chat/completions?stream=1&words=100",
		"/openai/deployments/small/completions?words=7",
		"/v1/chat/completions",
	}
}

func serveModels(t *testing.T, secure bool) (*program, int) {
	t.Helper()
	require.NotEmpty(t, python(), "there is no python3: apt install python3")
	var environment []string
	if secure {
		environment = []string{certificateVariable + "=" + certificate(t)}
	}
	server := start(t, environment, python(), "-u", filepath.Join("testdata", "programs", "models.py"), "serve")
	return server, server.record(t).Port
}

// genAIOf are the attributes of a span that are of generative AI.
func genAIOf(span ptrace.Span) map[string]any {
	found := map[string]any{}
	for key, value := range span.Attributes().AsRaw() {
		if strings.HasPrefix(key, "gen_ai.") {
			found[key] = value
		}
	}
	return found
}

// inTime sorts spans by their begin.
func inTime(spans []ptrace.Span) []ptrace.Span {
	return slices.SortedFunc(slices.Values(spans), func(a, b ptrace.Span) int {
		return int(int64(a.StartTimestamp()) - int64(b.StartTimestamp()))
	})
}

// said is what a model server said of itself, in the types that attributes have.
func (r record) said() map[string]any {
	for key, value := range r.Says {
		if number, ok := value.(float64); ok {
			r.Says[key] = int64(number)
		}
	}
	return r.Says
}

// handedOver is all that the probe has handed over, as it would be sent.
func (o *observation) handedOver() string {
	o.t.Helper()
	o.mutex.Lock()
	defer o.mutex.Unlock()
	traces := ptrace.NewTraces()
	scope := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty()
	for _, span := range o.spans {
		span.CopyTo(scope.Spans().AppendEmpty())
	}
	sent, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
	require.NoError(o.t, err)
	for _, metrics := range o.metrics {
		more, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(metrics)
		require.NoError(o.t, err)
		sent = append(sent, more...)
	}
	return string(sent)
}

func TestModelServer(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			server, port := serveModels(t, secure)
			o := observe(t, func(p *Probe) { p.config.GenAI, p.pairing.genAI = true, true })
			base := at(port, "")
			if secure {
				base = securely(port, "")
				o.attached(server)
			}
			asked := modelRequests()
			client := startPython(t, append([]string{"models.py", "ask", base}, asked...)...)
			for range asked {
				require.Equal(t, 200, client.record(t).Status)
			}
			clients := inTime(o.wait(len(asked), ptrace.SpanKindClient, port, "/"))
			servers := inTime(o.wait(len(asked), ptrace.SpanKindServer, port, "/"))
			require.Len(t, clients, len(asked))
			require.Len(t, servers, len(asked))
			var input, output float64
			for i, target := range asked {
				says := server.record(t).said()
				if tokens, known := says[attrGenAIInputTokens]; known {
					input += float64(tokens.(int64))
				}
				if tokens, known := says[attrGenAIOutputTokens]; known {
					output += float64(tokens.(int64))
				}
				assert.Equal(t, says, genAIOf(servers[i]), "server, %s", target)
				at := genAIOf(clients[i])
				if says[attrGenAIStream] == true {
					first, _ := at[attrGenAIFirstChunk].(float64)
					assert.Greater(t, first, 0.02, target)
					assert.Less(t, first, duration(clients[i]).Seconds()-0.05, "%s: the server waits 0.1 s after it", target)
				}
				delete(at, attrGenAIFirstChunk)
				assert.Equal(t, says, at, "client, %s", target)
			}
			assert.Empty(t, o.losses())
			o.stopObserving()
			assert.Zero(t, o.pairing.kept)
			counted := o.tokens()
			assert.Equal(t, map[string]float64{"input": input, "output": output}, counted)
			sent := o.handedOver()
			assert.Contains(t, sent, "small-model-2026")
			for _, text := range []string{"secretprompt", "secretanswer", "0.0123456789", "assistant"} {
				assert.NotContains(t, sent, text)
			}
		})
	}
}

// A server of Go reads the first byte of a request by itself, and the buffers of both of its ends cut bodies elsewhere than
// Python's do.
func TestModelServerBehindGo(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			server, port := serveModels(t, secure)
			environment, base := []string{programVariable + "=proxy"}, at
			if secure {
				environment, base = append(environment, certificateVariable+"="+certificate(t)), securely
			}
			proxy := start(t, environment, executable(t), base(port, ""))
			between := proxy.record(t).Port
			o := observe(t, func(p *Probe) { p.config.GenAI, p.pairing.genAI = true, true })
			if secure {
				o.attached(server)
				o.attached(proxy)
			}
			asked := modelRequests()
			client := startPython(t, append([]string{"models.py", "ask", base(between, "")}, asked...)...)
			for range asked {
				require.Equal(t, 200, client.record(t).Status)
			}
			clients := inTime(o.wait(len(asked), ptrace.SpanKindClient, port, "/"))
			servers := inTime(o.wait(len(asked), ptrace.SpanKindServer, between, "/"))
			require.Len(t, clients, len(asked))
			require.Len(t, servers, len(asked))
			for i, target := range asked {
				says := server.record(t).said()
				assert.Equal(t, says, genAIOf(servers[i]), "server, %s", target)
				at := genAIOf(clients[i])
				delete(at, attrGenAIFirstChunk)
				assert.Equal(t, says, at, "client, %s", target)
			}
			assert.Empty(t, o.losses())
		})
	}
}

func TestCurlToModelServer(t *testing.T) {
	server, port := serveModels(t, false)
	o := observe(t, func(p *Probe) { p.config.GenAI, p.pairing.genAI = true, true })
	for _, body := range []string{
		`{"model":"small-model","messages":[{"role":"user","content":"one two"}]}`,
		`{"model":"small-model","stream":true,"messages":[{"role":"user","content":"one two three"}]}`,
	} {
		curl(t, "-H", "Content-Type: application/json", "--data-binary", body, at(port, "/v1/chat/completions?words=9"))
		client, served := o.ends(port, "/v1/chat/completions")
		says := server.record(t).said()
		assert.Equal(t, "chat small-model", client.Name())
		assert.Equal(t, says, genAIOf(served))
		asked := genAIOf(client)
		delete(asked, attrGenAIFirstChunk)
		assert.Equal(t, says, asked)
		o.forget()
	}
	assert.Empty(t, o.losses())
}

// tokens adds up what the metric of tokens says, by their type.
func (o *observation) tokens() map[string]float64 {
	counted := map[string]float64{}
	for _, metrics := range o.metrics {
		for _, resource := range metrics.ResourceMetrics().All() {
			for _, scope := range resource.ScopeMetrics().All() {
				for _, metric := range scope.Metrics().All() {
					if metric.Name() != "gen_ai.client.token.usage" {
						continue
					}
					for _, point := range metric.Histogram().DataPoints().All() {
						kind, _ := point.Attributes().Get(attrGenAITokenType)
						counted[kind.Str()] += point.Sum()
					}
				}
			}
		}
	}
	return counted
}

// sentWhile loads the kernel side alone, and gives all bytes that it captures for user space until a program has ended.
func (o *observation) sentWhile(run func() *program) string {
	o.t.Helper()
	require.NoError(o.t, o.Shutdown(context.Background()))
	require.NoError(o.t, o.load())
	defer func() { require.NoError(o.t, o.release()) }()
	require.NoError(o.t, o.attach())
	var all strings.Builder
	drain := func() {
		_, err := o.reader.Drain(func(sample []byte) {
			_, _, data, err := decode(sample)
			require.NoError(o.t, err)
			all.Write(data)
		})
		require.NoError(o.t, err)
	}
	for p := run(); ; {
		select {
		case <-p.ended:
			drain()
			return all.String()
		default:
			drain()
		}
	}
}

// Unless it is asked for, no body is captured, and nothing is said of it; nor are the bodies of other requests.
func TestModelServerNotAsked(t *testing.T) {
	const known = "/v1/chat/completions"
	for _, asked := range []bool{false, true} {
		for _, path := range []string{known, "/v1/charts", "/v1/comments", "/app/chat", "/api/charts"} {
			t.Run(fmt.Sprintf("%t%s", asked, path), func(t *testing.T) {
				_, port := serveModels(t, false)
				o := observe(t, func(p *Probe) { p.config.GenAI, p.pairing.genAI = asked, asked })
				ask := func() *program {
					return startPython(t, "models.py", "ask", at(port, ""), path+"?pad=1&prompt=50&words=50")
				}
				ask().finish(t)
				client, server := o.ends(port, path)
				wanted := asked && path == known
				for _, span := range []ptrace.Span{client, server} {
					assert.Equal(t, wanted, len(genAIOf(span)) > 0)
				}
				captured := o.sentWhile(ask)
				assert.Contains(t, captured, "POST "+path)
				for _, text := range []string{"secretprompt", "secretanswer"} {
					assert.Equal(t, wanted, strings.Contains(captured, text), text)
				}
				assert.Equal(t, wanted, strings.Contains(o.handedOver(), "gen_ai"))
			})
		}
	}
}

// After one to a model server, a connection may carry others.
func TestModelServerBeforeOthers(t *testing.T) {
	_, port := serveModels(t, false)
	o := observe(t, func(p *Probe) { p.config.GenAI = true })
	captured := o.sentWhile(func() *program {
		return startPython(t, "models.py", "ask", at(port, ""), "/v1/chat/completions?pad=1&secret=first&prompt=50",
			"/v1/charts?pad=1&secret=second&prompt=50&words=50", "/v1/chat/completions?pad=1&secret=third&prompt=50")
	})
	assert.Contains(t, captured, "first first")
	assert.NotContains(t, captured, "second second")
	assert.Contains(t, captured, "third third")
}
