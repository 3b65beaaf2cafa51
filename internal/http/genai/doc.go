// Package genai reads what requests to model servers and their responses tell of themselves: which model was asked, how
// many tokens it took, why it ended. It knows the HTTP APIs of OpenAI, which many servers imitate, and of Ollama.
//
// It works on the first and the last bytes of bodies, and tells only what these bytes leave no doubt about: what is of the
// text of a prompt or of an answer is never taken for something else, and never kept.
package genai
