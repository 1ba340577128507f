// Package process runs the built binary as a user would, for the tests and measurements that look at it from outside: it finds
// bin/rebeca, starts it with its output in a file, and waits for it, for a page, or for a condition, always with a limit.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// poll is the pause between two looks at a condition: short beside a start-up, long beside a system call.
const poll = 20 * time.Millisecond

// Binary returns the absolute path of the binary under test: $REBECA_BIN, else bin/rebeca in the folder of go.mod, sought from the
// working directory upwards. The error says how to build it.
func Binary() (string, error) {
	if path := os.Getenv("REBECA_BIN"); path != "" {
		return filepath.Abs(path)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "rebeca")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("finding the binary: %w (run `make build`, or set REBECA_BIN)", err)
	}
	return path, nil
}

// Root returns the folder of go.mod, sought from the working directory upwards.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("finding the repository: no go.mod here or above")
		}
		dir = parent
	}
}

// FreeAddress returns a loopback address that nothing listens on now.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Process is a program that was started. Its methods are for one goroutine.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the program has ended
	err  error         // how it ended; read after done
}

// Start runs a program with both of its outputs appended to the file log. The child leads a process group of its own, so that Kill
// takes what it started along.
func Start(log string, command string, args ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	defer out.Close() // the child holds its own descriptor
	cmd := exec.Command(command, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(command), err)
	}
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the process and its children at once, as a power cut would, and waits for it. Ending a process that has ended is fine.
func (p *Process) Kill() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
}

// Terminate asks the process to end (SIGTERM) and returns how it did: nil for exit code 0. After limit it is killed, which is an
// error.
func (p *Process) Terminate(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.Wait(limit)
}

// Wait returns how the process ended, nil for exit code 0. After limit it is killed, which is an error.
func (p *Process) Wait(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s did not end within %v", filepath.Base(p.cmd.Path), limit)
	}
}

// Tail returns the last lines of what the process printed, for a message about its failure.
func (p *Process) Tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Until looks at a condition until it holds. It ends early with an error when the context does or the condition itself returns an
// error, which is then in the chain.
func Until(ctx context.Context, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, err := holds()
		if err != nil {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// Answers waits until a GET of url is answered with 200, and returns the body. It ends early when the process does.
func (p *Process) Answers(ctx context.Context, url string) ([]byte, error) {
	var body []byte
	err := Until(ctx, url+" answers 200", func() (bool, error) {
		select {
		case <-p.done:
			return false, fmt.Errorf("the process ended (%v); it said:\n%s", p.err, p.Tail(20))
		default:
		}
		var ok bool
		body, ok = get(ctx, url)
		return ok, nil
	})
	return body, err
}

// get returns the body of a GET and whether the answer was 200. Any fault counts as "not yet".
func get(ctx context.Context, url string) ([]byte, bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return body, err == nil && response.StatusCode == http.StatusOK
}
