// Package pytorch runs the PyTorch side of a benchmark, tools/bench_prior.py, and asks it for one short block of runs after another, so
// that both sides take turns on one machine.
package pytorch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// Peer is a process that runs the PyTorch side in one mode. Each mode has a process of its own: compiled code brings a second OpenMP
// library, whose waiting threads would slow the other mode down.
type Peer struct {
	Mode    string // eager or compile
	Version string // of torch

	process  *exec.Cmd
	requests io.WriteCloser
	answers  *json.Decoder
}

// Start starts script with an interpreter that has torch. Close ends it.
func Start(python, script, mode string, threads int) (*Peer, error) {
	p := &Peer{Mode: mode, process: exec.Command(python, script, "serve", strconv.Itoa(threads))}
	p.process.Stderr = os.Stderr
	var err error
	if p.requests, err = p.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(bufio.NewReader(out))
	if err := p.process.Start(); err != nil {
		return nil, fmt.Errorf("starting PyTorch: %w", err)
	}
	var hello struct{ Torch string }
	if err := p.answers.Decode(&hello); err != nil {
		p.Close()
		return nil, fmt.Errorf("starting PyTorch by %s: %w (does it have torch? see tools/bench_prior.py)", python, err)
	}
	p.Version = hello.Torch
	return p, nil
}

// Block has the peer make so many runs of a case and returns their times in milliseconds.
func (p *Peer) Block(name string, runs int) ([]float64, error) {
	request := map[string]any{"case": name, "mode": p.Mode, "runs": runs}
	if err := json.NewEncoder(p.requests).Encode(request); err != nil {
		return nil, fmt.Errorf("asking PyTorch: %w", err)
	}
	var answer struct{ MS []float64 }
	if err := p.answers.Decode(&answer); err != nil {
		return nil, fmt.Errorf("reading PyTorch's answer: %w", err)
	}
	if len(answer.MS) != runs {
		return nil, fmt.Errorf("PyTorch answered %d times to a request for %d", len(answer.MS), runs)
	}
	return answer.MS, nil
}

// Close ends the process, which stops at the end of its input.
func (p *Peer) Close() error {
	p.requests.Close()
	if err := p.process.Wait(); err != nil {
		return fmt.Errorf("ending PyTorch: %w", err)
	}
	return nil
}
