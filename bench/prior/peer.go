package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// peer is a process that runs the PyTorch side in one mode. Each mode has a process of its own: compiled code brings a second OpenMP
// library, whose waiting threads would slow the other mode down.
type peer struct {
	mode     string
	version  string
	process  *exec.Cmd
	requests io.WriteCloser
	answers  *json.Decoder
}

func startPeer(python, script, mode string, threads int) (*peer, error) {
	p := &peer{mode: mode, process: exec.Command(python, script, "serve", strconv.Itoa(threads))}
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
		p.close()
		return nil, fmt.Errorf("starting PyTorch by %s: %w (does it have torch? see tools/bench_prior.py)", python, err)
	}
	p.version = hello.Torch
	return p, nil
}

// block has the peer make so many runs of a case and returns their times in milliseconds.
func (p *peer) block(name string, runs int) ([]float64, error) {
	request := map[string]any{"case": name, "mode": p.mode, "runs": runs}
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

// close ends the process, which stops at the end of its input.
func (p *peer) close() error {
	p.requests.Close()
	if err := p.process.Wait(); err != nil {
		return fmt.Errorf("ending PyTorch: %w", err)
	}
	return nil
}
