package genai

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOperation(t *testing.T) {
	for target, want := range map[string]Kind{
		"/v1/chat/completions": OpenAIChat,
		"/v1/completions":      OpenAICompletion,
		"/v1/embeddings":       OpenAIEmbeddings,
		"/api/generate":        OllamaGenerate,
		"/api/chat":            OllamaChat,
		"/chat/completions":    OpenAIChat,
		"/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21": OpenAIChat,
		"/openai/deployments/gpt-4o/completions?api-version=2024-10-21":      OpenAICompletion,
		"/openai/deployments/ada/embeddings":                                 OpenAIEmbeddings,
		"/openai/v1/chat/completions":                                        OpenAIChat,
		"/v1beta/openai/chat/completions":                                    OpenAIChat,
		"/api/v1/completions":                                                OpenAICompletion,
		"http://models.example:8000/v1/completions?x=1":                      OpenAICompletion,
		"":                                    0,
		"*":                                   0,
		"models.example:443":                  0,
		"http://models.example":               0,
		"v1/completions":                      0,
		"/":                                   0,
		"/v1/chat/completions/chatcmpl-1":     0,
		"/search?path=/v1/chat/completions":   0,
		"/completions":                        0,
		"/v2/completions":                     0,
		"/embeddings":                         0,
		"/openai/deployments//completions":    0,
		"/openai/deployments/completions":     0,
		"/openai/deployments/a/b/completions": 0,
		"/x/api/chat":                         0,
		"/api/chats":                          0,
	} {
		got, ok := Operation("POST", target)
		assert.Equal(t, want, got, target)
		assert.Equal(t, want != 0, ok, target)
		_, ok = Operation("GET", target)
		assert.False(t, ok, "it lists what was stored")
	}
}

func TestNamesAreThoseOfTheConventions(t *testing.T) {
	for kind, want := range map[Kind]string{
		OpenAIChat: "chat", OllamaChat: "chat", OpenAICompletion: "text_completion", OllamaGenerate: "text_completion",
		OpenAIEmbeddings: "embeddings", 0: "", 99: "",
	} {
		assert.Equal(t, want, kind.Name())
	}
}

func TestProvider(t *testing.T) {
	for host, want := range map[string]string{
		"api.openai.com": "openai", "API.OpenAI.com.": "openai", "mine.openai.azure.com": "azure.ai.openai",
		"api.mistral.ai": "mistral_ai", "localhost": "", "": "", "api.openai.com.example": "", "notopenai.azure.com": "",
	} {
		assert.Equal(t, want, Provider(host), host)
	}
}
