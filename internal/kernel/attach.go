package kernel

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Rung is one way to get a capability.
type Rung struct {
	Name   string // what a user sees, such as "tp_btf/inet_sock_set_state"
	Attach func() (io.Closer, error)
}

// Refusal is why one rung could not be taken.
type Refusal struct {
	Rung string
	Err  error
}

func (r Refusal) Error() string { return fmt.Sprintf("%s: %v", r.Rung, r.Err) }

func (r Refusal) Unwrap() error { return r.Err }

// Attachment is a capability that was got, with the better rungs that were refused on the way.
//
// It holds the link: a BPF program detaches when the Attachment is closed or garbage collected.
type Attachment struct {
	Capability string
	Rung       string
	Refusals   []Refusal

	closer io.Closer
}

// Close detaches. Closing twice is harmless.
func (a *Attachment) Close() error {
	if a == nil || a.closer == nil {
		return nil
	}
	closer := a.closer
	a.closer = nil
	if err := closer.Close(); err != nil {
		return fmt.Errorf("detach %s (%s): %w", a.Capability, a.Rung, err)
	}
	return nil
}

// String says in one line which rung was got and why not a better one.
func (a *Attachment) String() string {
	var line strings.Builder
	fmt.Fprintf(&line, "%s: %s", a.Capability, a.Rung)
	for _, refusal := range a.Refusals {
		fmt.Fprintf(&line, "; not %s", refusal.Error())
	}
	return line.String()
}

// LadderError says that no rung of a capability could be taken, and why each was refused.
type LadderError struct {
	Capability string
	Refusals   []Refusal
}

func (e *LadderError) Error() string {
	if len(e.Refusals) == 0 {
		return fmt.Sprintf("attach %s: there is no way to do it on this system", e.Capability)
	}
	var message strings.Builder
	fmt.Fprintf(&message, "attach %s: every way was refused", e.Capability)
	for i, refusal := range e.Refusals {
		separator := "; "
		if i == 0 {
			separator = ": "
		}
		message.WriteString(separator)
		message.WriteString(refusal.Error())
	}
	return message.String()
}

func (e *LadderError) Unwrap() []error {
	causes := make([]error, 0, len(e.Refusals))
	for _, refusal := range e.Refusals {
		causes = append(causes, refusal.Err)
	}
	return causes
}

var errNothingAttached = errors.New("the rung reported success but attached nothing")

// Climb tries the rungs in order, best first, and returns the first that attaches.
//
// Where all are refused the error is a *LadderError.
func Climb(capability string, rungs ...Rung) (*Attachment, error) {
	var refusals []Refusal
	for _, rung := range rungs {
		closer, err := rung.Attach()
		if err == nil && closer == nil {
			err = errNothingAttached
		}
		if err != nil {
			refusals = append(refusals, Refusal{Rung: rung.Name, Err: err})
			continue
		}
		return &Attachment{Capability: capability, Rung: rung.Name, Refusals: refusals, closer: closer}, nil
	}
	return nil, &LadderError{Capability: capability, Refusals: refusals}
}
