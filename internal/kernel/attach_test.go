package kernel

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// attached counts how often it was closed.
type attached struct {
	closed int
	err    error
}

func (a *attached) Close() error { a.closed++; return a.err }

func TestClimb(t *testing.T) {
	noTypes, noTracepoint := errors.New("no BTF"), errors.New("no such tracepoint")
	refuse := func(name string, err error) Rung {
		return Rung{name, func() (io.Closer, error) { return nil, err }}
	}
	accept := func(name string) Rung {
		return Rung{name, func() (io.Closer, error) { return &attached{}, nil }}
	}
	for name, test := range map[string]struct {
		rungs    []Rung
		rung     string
		refusals int
		says     string
	}{
		"the best is there": {
			[]Rung{accept("tp_btf"), refuse("raw_tp", noTracepoint)}, "tp_btf", 0, "states: tp_btf",
		},
		"the second is there": {
			[]Rung{refuse("tp_btf", noTypes), accept("raw_tp")}, "raw_tp", 1, "states: raw_tp; not tp_btf: no BTF",
		},
		"none is there": {
			[]Rung{refuse("tp_btf", noTypes), refuse("raw_tp", noTracepoint)}, "", 2,
			"attach states: every way was refused: tp_btf: no BTF; raw_tp: no such tracepoint",
		},
		"nothing was attached": {
			[]Rung{refuse("tp_btf", nil)}, "", 1, "attached nothing",
		},
		"no rungs": {nil, "", 0, "no way"},
	} {
		t.Run(name, func(t *testing.T) {
			attachment, err := Climb("states", test.rungs...)
			if test.rung == "" {
				var ladder *LadderError
				if !errors.As(err, &ladder) || len(ladder.Refusals) != test.refusals {
					t.Fatalf("Climb() = %v, want a LadderError of %d refusals", err, test.refusals)
				}
				for _, refusal := range ladder.Refusals {
					if !errors.Is(err, refusal.Err) {
						t.Errorf("the error does not wrap %v", refusal.Err)
					}
				}
				if !strings.Contains(err.Error(), test.says) {
					t.Errorf("the error is %q, want it to say %q", err, test.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if attachment.Rung != test.rung || len(attachment.Refusals) != test.refusals || attachment.String() != test.says {
				t.Errorf("got %q (%s) with %d refusals, want %q", attachment, attachment.Rung, len(attachment.Refusals), test.says)
			}
		})
	}
}

func TestAttachmentClose(t *testing.T) {
	var none *Attachment
	if err := none.Close(); err != nil {
		t.Errorf("close of no attachment: %v", err)
	}
	stuck := errors.New("stuck")
	link := &attached{err: stuck}
	attachment, err := Climb("states", Rung{"tp_btf", func() (io.Closer, error) { return link, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := attachment.Close(); !errors.Is(err, stuck) || !strings.Contains(err.Error(), "detach states (tp_btf)") {
		t.Errorf("close: %v", err)
	}
	if err := attachment.Close(); err != nil || link.closed != 1 {
		t.Errorf("second close: %v, the link was closed %d times", err, link.closed)
	}
}
