package genai

import "bytes"

// beginsEvents says whether data begins as server-sent events do (WHATWG HTML, section 9.2.5): with one of their fields, or
// a comment.
func beginsEvents(data []byte) bool {
	data = bytes.TrimLeft(data, "\r\n")
	for _, field := range []string{"data:", "event:", "id:", "retry:", ":"} {
		if bytes.HasPrefix(data, []byte(field)) {
			return true
		}
	}
	return false
}

// readEvents reads server-sent events, each of them an object of the API in one line, until "[DONE]". A line break within
// a string of JSON is escaped, so one that is not is a line's end wherever the bytes begin.
func (a *answer) readEvents(beginning, end []byte, bodyWhole bool) {
	if done := a.readLines(beginning); done {
		return
	}
	// There may be a usage in every event, of what has been made so far. It is that of all only at the end.
	a.input, a.output = -1, -1
	newline := bytes.IndexByte(end, '\n')
	if newline < 0 {
		return
	}
	last := newAnswer(a.kind)
	if done := last.readLines(end[newline+1:]); !done && !bodyWhole {
		return
	}
	a.adopt(last)
}

// readLines reads lines, of which the last may be cut, and says whether "[DONE]" was among them.
func (a *answer) readLines(data []byte) (done bool) {
	for len(data) > 0 {
		line := data
		if newline := bytes.IndexByte(data, '\n'); newline >= 0 {
			line, data = data[:newline], data[newline+1:]
		} else {
			data = nil
		}
		content, isData := bytes.CutPrefix(line, []byte("data:"))
		if !isData {
			continue
		}
		content = bytes.TrimSpace(content)
		if string(content) == "[DONE]" {
			return true
		}
		if len(content) > 0 && content[0] == '{' {
			a.readObject(&scanner{data: content})
		}
	}
	return false
}
