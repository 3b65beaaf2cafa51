//go:build linux

package symbol

import (
	"bytes"
	"fmt"
	"io"
)

// readLimited reads to the end, and fails if there is more than the limit.
func readLimited(reader io.Reader, limit int64) ([]byte, error) {
	var buffer bytes.Buffer
	count, err := io.Copy(&buffer, io.LimitReader(reader, limit+1))
	if err != nil {
		return nil, fmt.Errorf("after %d bytes: %w", count, err)
	}
	if count > limit {
		return nil, fmt.Errorf("more than %d bytes: %w", limit, ErrTooLarge)
	}
	return buffer.Bytes(), nil
}
