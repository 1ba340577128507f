//go:build kafka

package kafka

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rebeca/internal/process"
)

// The README says that its examples work as written while the demonstration runs. They are run as written, but for the ports.
func TestExamplesOfTheReadme(t *testing.T) {
	binary, err := process.Binary()
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlocks(t)
	if len(blocks) != 4 {
		t.Fatalf("the README has %d shell examples, this test knows 4", len(blocks))
	}
	broker, listen := freeAddress(t), freeAddress(t)
	demo, err := process.Start(filepath.Join(t.TempDir(), "demo.log"), binary, "demo", "--broker", broker, "--listen", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(demo.Kill)
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	if _, err := demo.Answers(ctx, "http://"+listen+"/readyz"); err != nil {
		t.Fatal(err)
	}
	run := func(block string) string {
		block = strings.NewReplacer("127.0.0.1:9092", broker, "127.0.0.1:8080", listen).Replace(block)
		out, err := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", block).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\nran:\n%s", err, out, block)
		}
		return string(out)
	}
	run(blocks[0])
	run(blocks[1])
	err = process.Until(ctx, "the first image for ada is published", func() (bool, error) {
		body, err := demo.Answers(ctx, "http://"+listen+"/v1/users/ada/generated?limit=1")
		return strings.Contains(string(body), `"prior_version"`), err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := run(blocks[2]); !strings.HasPrefix(got, `ada {"id":"`) {
		t.Errorf("kcat printed %q", got)
	}
	got := run(blocks[3])
	for _, want := range []string{`"status":"accepted"`, `{"items":[{"id":"`, `"user_id":"ada"`} {
		if !strings.Contains(got, want) {
			t.Errorf("curl printed no %s: %q", want, got)
		}
	}
	if err := demo.Terminate(30 * time.Second); err != nil {
		t.Errorf("ending the demonstration: %v; it said:\n%s", err, demo.Tail(20))
	}
}

// shellBlocks returns the fenced blocks of the README that are marked sh, in their order.
func shellBlocks(t *testing.T) []string {
	t.Helper()
	root, err := process.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, match[1])
	}
	return blocks
}

// The small configuration of the README is a whole one.
func TestConfigurationOfTheReadme(t *testing.T) {
	binary, err := process.Binary()
	if err != nil {
		t.Fatal(err)
	}
	root, err := process.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(text)
	if match == nil {
		t.Fatal("the README shows no configuration")
	}
	path := filepath.Join(t.TempDir(), "rebeca.yaml")
	if err := os.WriteFile(path, match[1], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "config", "validate", "-c", path).CombinedOutput(); err != nil {
		t.Errorf("config validate: %v\n%s", err, out)
	}
}
