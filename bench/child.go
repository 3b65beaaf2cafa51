//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// roleVariable names what a child process is to do; lifeVariable for how long at most.
const (
	roleVariable = "EBPFRECEIVER_BENCH_ROLE"
	lifeVariable = "EBPFRECEIVER_BENCH_LIFE"
)

type request struct {
	Operation string
	Body      json.RawMessage
}

type answer struct {
	Error string
	Body  json.RawMessage
}

// operations are what a role can do, by name.
type operations map[string]func(json.RawMessage) (any, error)

// operation gives a typed function the shape that operations have.
func operation[Request, Answer any](do func(Request) (Answer, error)) func(json.RawMessage) (any, error) {
	return func(body json.RawMessage) (any, error) {
		var typed Request
		if err := json.Unmarshal(body, &typed); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		return do(typed)
	}
}

// none is the body of a request or an answer that has none.
type none struct{}

// serve does what the parent asks until the parent has gone. A child that outlives its time ends by itself.
func serve(do operations) error {
	life, err := time.ParseDuration(os.Getenv(lifeVariable))
	if err != nil {
		return fmt.Errorf("read how long to live: %w", err)
	}
	time.AfterFunc(life, func() {
		fmt.Fprintln(os.Stderr, "bench: a child process has run for", life, "and ends")
		os.Exit(1)
	})

	decoder, encoder := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	requests := make(chan request)
	go func() {
		for {
			var next request
			if err := decoder.Decode(&next); err != nil {
				os.Exit(0) // the parent has gone, or wants no more
			}
			requests <- next
		}
	}()
	for next := range requests {
		var reply answer
		perform, known := do[next.Operation]
		if !known {
			return fmt.Errorf("unknown operation %q", next.Operation)
		}
		result, err := perform(next.Body)
		if err != nil {
			reply.Error = err.Error()
		} else if reply.Body, err = json.Marshal(result); err != nil {
			return fmt.Errorf("write the answer to %s: %w", next.Operation, err)
		}
		if err := encoder.Encode(reply); err != nil {
			return fmt.Errorf("answer %s: %w", next.Operation, err)
		}
	}
	return nil
}

// child is a running child process, seen from its parent.
type child struct {
	role    string
	command *exec.Cmd
	input   io.WriteCloser
	encoder *json.Encoder
	decoder *json.Decoder
}

// ownBinary is this program.
const ownBinary = "/proc/self/exe"

// startChild runs this program again in a role, for so long at most.
func startChild(role string, life time.Duration) (*child, error) {
	return startBinary(ownBinary, role, life)
}

// startBinary runs this program, or another build of it, in a role.
func startBinary(binary, role string, life time.Duration) (*child, error) {
	command := exec.Command(binary)
	command.Env = append(os.Environ(), roleVariable+"="+role, lifeVariable+"="+life.String())
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make the input of a %s: %w", role, err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make the output of a %s: %w", role, err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	return &child{
		role: role, command: command, input: input,
		encoder: json.NewEncoder(input), decoder: json.NewDecoder(output),
	}, nil
}

// call asks a child to do something and waits until it has.
func call[Answer any](c *child, operation string, body any) (Answer, error) {
	var result Answer
	encoded, err := json.Marshal(body)
	if err != nil {
		return result, fmt.Errorf("write the request %s: %w", operation, err)
	}
	if err := c.encoder.Encode(request{Operation: operation, Body: encoded}); err != nil {
		return result, fmt.Errorf("ask the %s to %s: %w", c.role, operation, err)
	}
	var reply answer
	if err := c.decoder.Decode(&reply); err != nil {
		return result, fmt.Errorf("wait for the %s to %s: it has ended: %w", c.role, operation, err)
	}
	if reply.Error != "" {
		return result, fmt.Errorf("%s: %s: %w", c.role, operation, errors.New(reply.Error))
	}
	if err := json.Unmarshal(reply.Body, &result); err != nil {
		return result, fmt.Errorf("read what the %s answers to %s: %w", c.role, operation, err)
	}
	return result, nil
}

// stop ends a child and waits for it.
func (c *child) stop() {
	c.input.Close()
	_ = c.command.Wait() // a child that failed has said so
}
