package rebeca

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func historyLine(n int) string {
	return fmt.Sprintf(`{"event_id":"e%d","user_id":"u%d","item_id":"i","kind":"like","occurred_at":"2026-01-01T00:00:00Z"}`, n, n%7)
}

func historyFile(t *testing.T, lines []string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "events.jsonl")
	writeHistory(t, file, lines, "\n")
	return file
}

func writeHistory(t *testing.T, file string, lines []string, end string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+end), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestImportGoesOnInAnEditedFile edits a file after a part of it was sent: only
// what was not sent is, unless the part that was sent is another now.
func TestImportGoesOnInAnEditedFile(t *testing.T) {
	s := newStand(t)
	var lines []string
	for i := range 2500 {
		lines = append(lines, historyLine(i))
	}
	lines[1499] = "{"
	file := historyFile(t, lines)
	im := Import{Client: s.client, Topic: "feedback", Partitions: 2, StateDir: s.config.State.Dir, Parse: FeedbackLine}
	run := func(what, end string, want ImportResult) {
		t.Helper()
		writeHistory(t, file, lines, end)
		if got, err := im.Run(t.Context(), file); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	if _, err := im.Run(t.Context(), file); err == nil || !strings.Contains(err.Error(), "line 1500") {
		t.Fatalf("a bad line gives %v", err)
	}
	lines[1499] = historyLine(1499)
	run("mended", "", ImportResult{Resumed: true, Produced: 1500})
	lines = append(lines, historyLine(2500), historyLine(2501))
	run("grown", "\n", ImportResult{Resumed: true, Produced: 2})
	if _, err := im.Run(t.Context(), file); err == nil || !strings.Contains(err.Error(), "before") {
		t.Errorf("the same file again gives %v", err)
	}
	lines = append(lines, "{")
	writeHistory(t, file, lines, "\n")
	if _, err := im.Run(t.Context(), file); err == nil || !strings.Contains(err.Error(), "line 2503:") {
		t.Errorf("a bad line behind a last one without an end gives %v", err)
	}
	lines = lines[:2502]
	lines[7] = historyLine(9000)
	run("changed", "\n", ImportResult{Changed: true, Produced: 2502})
	lines = lines[:100]
	run("cut", "\n", ImportResult{Changed: true, Produced: 100})
	if n := len(s.read("feedback")); n != 2500+2+2502+100 {
		t.Errorf("%d records are on the topic", n)
	}
}

func TestImportEndsWhenTheFileShrinks(t *testing.T) {
	s := newStand(t)
	var lines []string
	for i := range 20000 { // more than is read ahead
		lines = append(lines, historyLine(i))
	}
	file := historyFile(t, lines)
	im := Import{
		Client: s.client, Topic: "feedback", Partitions: 2, StateDir: s.config.State.Dir, Skip: true,
		Parse: func(line []byte) ([]byte, error) {
			return []byte("u"), os.Truncate(file, 1000)
		},
	}
	if _, err := im.Run(t.Context(), file); err == nil || !strings.Contains(err.Error(), "has shrunk") {
		t.Errorf("it ends with %v", err)
	}
}

func TestImportEndsWithItsContext(t *testing.T) {
	s := newStand(t)
	file := historyFile(t, strings.Split(strings.Repeat("{ ", 5000), " "))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bad := 0
	im := Import{
		Client: s.client, Topic: "feedback", Partitions: 2, StateDir: s.config.State.Dir, Parse: FeedbackLine,
		Skip: true, OnBad: func(int, error) { bad++; cancel() }, // nothing is produced that could see the end
	}
	if _, err := im.Run(ctx, file); !errors.Is(err, context.Canceled) || bad > importBatch {
		t.Errorf("it ends with %v after %d lines", err, bad)
	}
}

func TestImportWantsAFile(t *testing.T) {
	im := Import{Topic: "feedback", Partitions: 2, StateDir: t.TempDir(), Parse: FeedbackLine}
	if _, err := im.Run(t.Context(), os.DevNull); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%s gives %v", os.DevNull, err)
	}
}
