package genai

import "strings"

// Kind is an operation of one of the known APIs.
type Kind uint8

// The operations.
const (
	OpenAIChat       Kind = iota + 1 // POST .../chat/completions
	OpenAICompletion                 // POST .../v1/completions
	OpenAIEmbeddings                 // POST .../v1/embeddings
	OllamaGenerate                   // POST /api/generate
	OllamaChat                       // POST /api/chat
)

// Name is the operation as gen_ai.operation.name spells it. Empty: there is no such kind.
func (k Kind) Name() string {
	switch k {
	case OpenAIChat, OllamaChat:
		return "chat"
	case OpenAICompletion, OllamaGenerate:
		return "text_completion"
	case OpenAIEmbeddings:
		return "embeddings"
	}
	return ""
}

// ollama says whether the operation is of Ollama's API. Its paths are common ones: the response has to show that it is.
func (k Kind) ollama() bool { return k == OllamaGenerate || k == OllamaChat }

// Operation tells which operation a request asks for, by its method and its target, a path with or without a query or
// the absolute form. The APIs of others put something before OpenAI's paths, such as /api or /openai/deployments/NAME; only
// where the end of the path alone could be anybody's is it looked at.
func Operation(method, target string) (Kind, bool) {
	if method != "POST" { // GET lists what was stored
		return 0, false
	}
	path, _, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") {
		_, rest, absolute := strings.Cut(path, "://")
		slash := strings.IndexByte(rest, '/')
		if !absolute || slash < 0 {
			return 0, false
		}
		path = rest[slash:]
	}
	switch path {
	case "/api/generate":
		return OllamaGenerate, true
	case "/api/chat":
		return OllamaChat, true
	}
	switch {
	case strings.HasSuffix(path, "/chat/completions"):
		return OpenAIChat, true
	case strings.HasSuffix(path, "/v1/completions") || ofDeployment(path, "/completions"):
		return OpenAICompletion, true
	case strings.HasSuffix(path, "/v1/embeddings") || ofDeployment(path, "/embeddings"):
		return OpenAIEmbeddings, true
	}
	return 0, false
}

// ofDeployment says whether a path is /openai/deployments/NAME and the end, as Azure OpenAI has it.
func ofDeployment(path, end string) bool {
	name, isDeployment := strings.CutPrefix(path, "/openai/deployments/")
	name, ends := strings.CutSuffix(name, end)
	return isDeployment && ends && name != "" && !strings.Contains(name, "/")
}

// Provider is the value of gen_ai.provider.name for the host that a client calls, in any case. Empty: the host does not
// tell, as that of a server of one's own.
func Provider(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	switch host {
	case "api.openai.com":
		return "openai"
	case "generativelanguage.googleapis.com":
		return "gcp.gemini"
	case "api.deepseek.com":
		return "deepseek"
	case "api.groq.com":
		return "groq"
	case "api.mistral.ai":
		return "mistral_ai"
	case "api.perplexity.ai":
		return "perplexity"
	case "api.x.ai":
		return "x_ai"
	}
	if strings.HasSuffix(host, ".openai.azure.com") {
		return "azure.ai.openai"
	}
	return ""
}
