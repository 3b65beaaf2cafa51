package http1

// maxChunk is how large a chunk may be: what claims to be larger is taken for something else.
const maxChunk = 1 << 30

type chunkState uint8

const (
	chunkSizeBegins chunkState = iota // a size comes
	chunkSizeGoesOn
	chunkExtension // the rest of the size's line
	chunkPayload
	chunkEnds // the line break after the payload
	chunkEndsLine
	trailerBegins // a line of trailers, or the blank one
	trailerGoesOn
	trailerEndsLine // a carriage return began the line
	chunksDone
	chunksLost
)

// Chunks walks over a chunked body (RFC 9112 section 7.1) that comes in parts, and adds up the payload. Not all bytes need
// to be seen: what lies within a chunk may be passed over. The zero value is at the beginning of a body.
type Chunks struct {
	state   chunkState
	size    int64 // of the chunk whose line is under way, or what is left of its payload
	payload int64
}

// Done says whether the body was walked to its end.
func (c *Chunks) Done() bool { return c.state == chunksDone }

// Lost says whether it is not known where the body ends.
func (c *Chunks) Lost() bool { return c.state == chunksLost }

// Payload is how many bytes the body carries, once it is done.
func (c *Chunks) Payload() int64 { return c.payload }

// Lose says that bytes come that are not known: where the body ends is not known any more.
func (c *Chunks) Lose() { c.state = chunksLost }

// Pass walks over bytes that are not known.
func (c *Chunks) Pass(length int64) {
	switch {
	case length == 0 || c.state == chunksDone:
	case c.state != chunkPayload || length > c.size:
		c.Lose()
	default:
		c.take(length)
	}
}

// Walk walks over data, and says how much of it belongs to the body.
func (c *Chunks) Walk(data []byte) (length int) {
	for at := 0; at < len(data); {
		switch c.state {
		case chunksDone, chunksLost:
			return at
		case chunkPayload:
			part := min(c.size, int64(len(data)-at))
			c.take(part)
			at += int(part)
		default:
			c.next(data[at])
			at++
		}
	}
	return len(data)
}

// WalkCall walks over a call of length bytes. data are its first bytes, and tail its last ones, as far as they are known.
func (c *Chunks) WalkCall(data []byte, length int64, tail []byte) {
	data = data[:min(int64(len(data)), length)]
	if c.Walk(data) < len(data) {
		return
	}
	rest := length - int64(len(data))
	tail = tail[max(0, int64(len(tail))-rest):]
	c.Pass(rest - int64(len(tail)))
	c.Walk(tail)
}

func (c *Chunks) take(length int64) {
	c.payload += length
	if c.size -= length; c.size == 0 {
		c.state = chunkEnds
	}
}

// next walks over a byte that is no payload.
func (c *Chunks) next(b byte) {
	switch c.state {
	case chunkSizeBegins, chunkSizeGoesOn:
		digit, ok := hexDigit(b)
		switch {
		case ok:
			c.size = c.size<<4 | digit
			if c.state = chunkSizeGoesOn; c.size > maxChunk {
				c.Lose()
			}
		case c.state == chunkSizeBegins:
			c.Lose()
		case b == '\n':
			c.endSize()
		default:
			c.state = chunkExtension
		}
	case chunkExtension:
		if b == '\n' {
			c.endSize()
		}
	case chunkEnds, chunkEndsLine:
		switch {
		case b == '\n':
			c.state, c.size = chunkSizeBegins, 0
		case b == '\r' && c.state == chunkEnds:
			c.state = chunkEndsLine
		default:
			c.Lose()
		}
	case trailerBegins, trailerEndsLine:
		switch {
		case b == '\n':
			c.state = chunksDone
		case b == '\r' && c.state == trailerBegins:
			c.state = trailerEndsLine
		default:
			c.state = trailerGoesOn
		}
	case trailerGoesOn:
		if b == '\n' {
			c.state = trailerBegins
		}
	}
}

func (c *Chunks) endSize() {
	c.state = chunkPayload
	if c.size == 0 {
		c.state = trailerBegins
	}
}

func hexDigit(b byte) (digit int64, ok bool) {
	switch {
	case '0' <= b && b <= '9':
		return int64(b - '0'), true
	case 'a' <= b|0x20 && b|0x20 <= 'f':
		return int64(b|0x20-'a') + 10, true
	}
	return 0, false
}
