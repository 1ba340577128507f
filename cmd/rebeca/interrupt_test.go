package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stubborn makes the test binary a verb that does not end when it is asked to.
const stubborn = "REBECA_TEST_STUBBORN"

func TestMain(m *testing.M) {
	if args := os.Getenv(verb); args != "" {
		os.Exit(run(strings.Split(args, "\n"), os.Stdout, os.Stderr))
	}
	if os.Getenv(stubborn) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := interruptible()
	defer stop()
	fmt.Println("running")
	<-ctx.Done()
	fmt.Println("asked to end")
	for { // a bare select would be found out as a deadlock
		time.Sleep(time.Hour)
	}
}

// TestSecondInterruptKills interrupts a verb that hangs.
func TestSecondInterruptKills(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), stubborn+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"running", "asked to end"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it says %q, want %q", lines.Text(), want)
		}
		if want == "running" {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	again, limit := time.NewTicker(50*time.Millisecond), time.After(20*time.Second)
	defer again.Stop()
	for {
		select {
		case err := <-done:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
				t.Errorf("it ended with %v, not by the signal", err)
			}
			return
		case <-again.C: // the first of these may come before the handler is gone
			_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		case <-limit:
			t.Errorf("it lives on after many interrupts: %v", cmd.Process.Kill())
			<-done
			return
		}
	}
}
