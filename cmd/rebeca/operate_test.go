package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rebeca"
	"rebeca/consumer"
	"rebeca/internal/broker"
	"rebeca/schemas"
	"rebeca/table"
)

// operator runs verbs against a broker, as an operator would.
type operator struct {
	t    *testing.T
	dir  string
	file string
}

func newOperator(t *testing.T) *operator {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	o := &operator{t: t, dir: t.TempDir()}
	o.file = o.write("rebeca.yaml", fmt.Sprintf("kafka: {brokers: [%q], partitions: 2}\nstate: {dir: %s/state}\nprior: {dim: 2}\n", b.Addr(), o.dir))
	o.run("topics create -c FILE")
	return o
}

func (o *operator) write(name, text string) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		o.t.Fatal(err)
	}
	return path
}

// run runs a verb; FILE and DIR stand for the configuration and the directory.
func (o *operator) run(line string, more ...string) string {
	o.t.Helper()
	args := append(strings.Fields(strings.NewReplacer("FILE", o.file, "DIR", o.dir).Replace(line)), more...)
	var out, errs bytes.Buffer
	if code := run(args, &out, &errs); code != 0 {
		o.t.Fatalf("rebeca %s: exit %d: %s", line, code, errs.String())
	}
	return out.String()
}

// holds fails unless a verb says all of these.
func (o *operator) holds(said string, want ...string) {
	o.t.Helper()
	for _, w := range want {
		if !strings.Contains(said, w) {
			o.t.Errorf("it says %q, want %q", said, w)
		}
	}
}

// TestReplayVerbs replays twice by different rules, compares, and promotes.
func TestReplayVerbs(t *testing.T) {
	o := newOperator(t)
	var events strings.Builder
	for i := range 40 {
		kind := []string{`"like"`, `"rating","value":3`}[i%2]
		fmt.Fprintf(&events, `{"event_id":"e%d","user_id":"u%d","item_id":"i%d","kind":%s,"occurred_at":"2026-01-01T00:00:00Z"}`+"\n", i, i%8, i%5, kind)
	}
	o.run("feedback import -c FILE " + o.write("events.jsonl", events.String()))
	o.write("rules.yaml", "classes: {preset: paper}\n")

	o.holds(o.run("replay -c FILE --from earliest --to latest --into DIR/a --dry-run"), "feedback[0]: 0 to ", "40 offsets would be folded into")
	var res rebeca.ReplayResult
	if err := json.Unmarshal([]byte(o.run("replay -c FILE --from earliest --to latest --into DIR/a --json")), &res); err != nil || res.Events != 40 || res.Users != 8 {
		t.Errorf("%+v, error %v", res, err)
	}
	o.holds(o.run("inspect digest -c FILE --state DIR/a"), res.SHA256, `"users":8`)
	o.holds(o.run("replay -c FILE --from earliest --to latest --into DIR/b --rules DIR/rules.yaml"), "40 events of 8 users", "no dead letters", "facts ")
	o.holds(o.run("replay -c FILE --from earliest --to latest --into DIR/b --rules DIR/rules.yaml --dry-run"), "0 offsets are left to fold into")
	said := o.run("replay diff -c FILE --a DIR/a --b DIR/b --limit 2")
	o.holds(said, "window", "… and 2 more", "8 users in a, 8 in b: 4 the same, 0 only in a, 0 only in b", "windows for 4")
	lines := strings.Split(strings.TrimSpace(o.run("replay diff -c FILE --a DIR/a --b DIR/b --json")), "\n")
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
	if len(lines) != 5 {
		t.Errorf("%d lines, want 4 users and the totals", len(lines))
	}
	if err := os.Rename(filepath.Join(o.dir, "a", "table"), filepath.Join(o.dir, "state", "table")); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	if code := run(strings.Fields(strings.ReplaceAll("replay promote -c "+o.file+" --from DIR/b", "DIR", o.dir)), &bytes.Buffer{}, &errs); code != 1 {
		t.Errorf("promoting what other rules made: exit %d, %s", code, errs.String())
	}
	o.holds(errs.String(), "into the configuration first")
	text, err := os.ReadFile(o.file)
	if err != nil {
		t.Fatal(err)
	}
	o.write("rebeca.yaml", string(text)+"classes: {preset: paper}\n")
	o.holds(o.run("replay promote -c FILE --from DIR/b --dry-run"), "would promote")
	var done rebeca.Promoted
	if err := json.Unmarshal([]byte(o.run("replay promote -c FILE --from DIR/b --json")), &done); err != nil || done.Aside == "" {
		t.Errorf("%+v, error %v", done, err)
	}
	o.holds(o.run("replay diff -c FILE --b "+done.Aside), "windows for 4")
}

// TestDeadletterVerbs lists, shows and redrives.
func TestDeadletterVerbs(t *testing.T) {
	o := newOperator(t)
	c, err := rebeca.LoadConfig(o.file)
	if err != nil {
		t.Fatal(err)
	}
	client, err := c.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	value := `{"event_id":"e","user_id":"u","item_id":"i","kind":"loved","occurred_at":"2026-01-01T00:00:00Z"}`
	var letters []consumer.Message
	for i, l := range []struct{ reason, message, value string }{
		{"unknown_kind", `kind "loved" is none`, value}, {"bad_json", "not \x1b[31mJSON", "\xff\x00"}, {"bad_json", "no", "no"},
	} {
		letters = append(letters, consumer.Message{Key: []byte("u"), Value: []byte(l.value), Headers: []schemas.Header{
			{Key: table.HeaderReason, Value: []byte(l.reason)}, {Key: table.HeaderMessage, Value: []byte(l.message)},
			{Key: table.HeaderTopic, Value: []byte("feedback")}, {Key: table.HeaderPartition, Value: []byte("1")},
			{Key: table.HeaderOffset, Value: fmt.Append(nil, i)},
		}})
	}
	if _, err := client.Produce(t.Context(), "deadletter", 1, letters); err != nil {
		t.Fatal(err)
	}
	list := o.run("deadletter list -c FILE")
	o.holds(list, "1:0 ", "unknown_kind", "feedback[1] 0", "3 dead letters: bad_json 2, unknown_kind 1")
	if strings.Contains(list, "\x1b") {
		t.Error("a record speaks to the terminal")
	}
	o.holds(o.run("deadletter list -c FILE --reason bad_json --limit 1"), "1:1 ", "… and 1 more", "2 dead letters")
	o.holds(o.run("deadletter list -c FILE --json --since 1h --topic feedback"), `"reason":"unknown_kind"`, `{"counts":{"bad_json":2,"unknown_kind":1},"total":3}`)
	o.holds(o.run("deadletter list -c FILE --until 1h"), "no dead letters")
	if said := o.run("deadletter show -c FILE 1:1"); !strings.HasSuffix(said, "\n\n\xff\x00") {
		t.Errorf("it shows %q, want the bytes as they came", said)
	}
	o.holds(o.run("deadletter show -c FILE 1:1 --json"), `"value":null`, `"value_base64":"/wA="`)
	o.holds(o.run("deadletter show -c FILE 1:0"), "rebeca-reason: unknown_kind", `key: "u"`, value)

	o.holds(o.run("deadletter redrive -c FILE --dry-run 1:0 1:1", "--edit", "sed s/loved/like/"), "1:0 (unknown_kind) would go to feedback", "1:1 (bad_json) stays: would come back", "1 dead letters would be redriven, 1 stay")
	o.holds(o.run("deadletter redrive -c FILE --all", "--edit", "sed s/loved/like/"), "1:0 (unknown_kind) went to feedback[", "1 dead letters redriven, 2 stay")
	o.holds(o.run("deadletter redrive -c FILE --json --reason unknown_kind"), `"left":"was redriven before`, `{"redriven":0,"left":1,"dry_run":false}`)
}
