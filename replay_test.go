package rebeca

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

var quiet = slog.New(slog.DiscardHandler)

// history sends a log with everything in it: all kinds, resends, undo, events
// of people who are forgotten, and what cannot be read.
func (s *stand) history(seed uint64, n int) {
	s.t.Helper()
	rng := rand.New(rand.NewPCG(seed, 9))
	byPartition := make([][]consumer.Message, s.config.Kafka.Partitions)
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	var sent []schemas.Feedback
	for i := range n {
		f := schemas.Feedback{
			EventID: fmt.Sprintf("%d-%d", seed, i), UserID: fmt.Sprintf("user-%d", rng.IntN(12)), ItemID: fmt.Sprintf("item-%d", rng.IntN(40)),
			Kind: schemas.Kinds()[rng.IntN(len(schemas.Kinds()))], OccurredAt: at.Add(-time.Duration(rng.IntN(60)) * time.Second),
		}
		if rng.IntN(3) > 0 {
			f.Kind = schemas.KindLike
		}
		if v := float64(1 + rng.IntN(5)); f.Kind == schemas.KindRating || f.Kind == schemas.KindView {
			f.Value = &v
		}
		if back := min(len(sent), 30); back > 0 && rng.IntN(10) == 0 {
			f = sent[len(sent)-1-rng.IntN(back)]
		}
		sent = append(sent, f)
		value, err := f.Encode()
		if err != nil {
			s.t.Fatal(err)
		}
		switch rng.IntN(60) {
		case 0:
			value = []byte("no JSON")
		case 1:
			value = nil
		}
		at = at.Add(time.Second)
		p := schemas.Partition([]byte(f.UserID), len(byPartition))
		byPartition[p] = append(byPartition[p], consumer.Message{Key: []byte(f.UserID), Value: value, Time: at})
	}
	for p, messages := range byPartition {
		if _, err := s.client.Produce(s.t.Context(), "feedback", int32(p), messages); err != nil {
			s.t.Fatal(err)
		}
	}
}

func bound(t *testing.T, text string) Bound {
	t.Helper()
	b, err := ParseBound(text, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replay is a whole replay, of all that is there if not told otherwise.
func (s *stand) replay(into string) *Replay {
	return &Replay{
		Config: s.config, Client: s.client, From: bound(s.t, "earliest"), To: bound(s.t, "latest"), Into: into, Logger: quiet,
	}
}

func (s *stand) replayed(r *Replay) ReplayResult {
	s.t.Helper()
	res, err := r.Run(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// plain folds the feedback topic in the plainest way, one record at a time and
// from another client library, into the bytes that table/DESIGN.md describes,
// and returns their SHA-256. It shares no code with the table.
type plain struct {
	items []string
	users map[string]*plainUser
	marks map[string][2]int64
}

type plainUser struct {
	events, positives, negatives uint64
	last                         int64
	newest, older                []plainEntry
	seen                         []uint64
}

type plainEntry struct {
	item        string
	kind, class byte
	at, offset  int64
	hash        uint64
}

func (e plainEntry) append(b []byte, items []string) []byte {
	le := binary.LittleEndian
	b = append(le.AppendUint32(b, uint32(slices.Index(items, e.item))), e.kind<<4|e.class)
	b = append(b, le.AppendUint64(nil, uint64(e.at))[:6]...)
	b = append(b, le.AppendUint64(nil, uint64(e.offset))[:6]...)
	return le.AppendUint64(b, e.hash)
}

func (s *stand) plainDigest() string {
	s.t.Helper()
	records := s.read("feedback")
	slices.SortStableFunc(records, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	folds := map[int32]*plain{}
	for _, r := range records {
		f := folds[r.Partition]
		if f == nil {
			f = &plain{users: map[string]*plainUser{}, marks: map[string][2]int64{}}
			folds[r.Partition] = f
		}
		f.record(r)
	}
	pairs := map[string][]byte{}
	for p, f := range folds {
		f.pairs(p, pairs)
	}
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		for _, b := range [][]byte{[]byte(key), pairs[key]} {
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (f *plain) record(r *kgo.Record) {
	key := string(r.Key)
	if r.Value == nil {
		delete(f.users, key)
		f.marks[key] = [2]int64{max(f.marks[key][0], r.Timestamp.UnixMilli()), r.Offset}
		return
	}
	var e struct {
		EventID    string    `json:"event_id"`
		ItemID     string    `json:"item_id"`
		Kind       string    `json:"kind"`
		Value      float64   `json:"value"`
		OccurredAt time.Time `json:"occurred_at"`
	}
	if json.Unmarshal(r.Value, &e) != nil {
		return
	}
	if m, ok := f.marks[key]; ok && e.OccurredAt.UnixMilli() <= m[0] {
		return
	}
	u := f.users[key]
	if u == nil {
		u = &plainUser{}
		f.users[key] = u
	}
	hash := schemas.EventHash(e.EventID)
	if slices.Contains(u.seen, hash) {
		return
	}
	if u.seen = append(u.seen, hash); len(u.seen) > 64 {
		u.seen = u.seen[1:]
	}
	u.events++
	u.last = r.Offset
	kinds := []string{"", "like", "dislike", "click", "view", "rating", "skip", "share", "save", "hide", "undo"}
	kind := slices.Index(kinds, e.Kind)
	const strong, weak, weakNegative, strongNegative = 1, 2, 3, 4
	class := []byte{0, strong, strongNegative, weak, 0, weakNegative, weakNegative, strong, strong, strongNegative, 0}[kind]
	switch {
	case e.Kind == "undo":
		same := func(x plainEntry) bool { return x.item == e.ItemID }
		u.newest, u.older = slices.DeleteFunc(u.newest, same), slices.DeleteFunc(u.older, same)
	case e.Kind == "view" && e.Value >= 10:
		class = weak
	case e.Kind == "rating" && e.Value >= 4:
		class = strong
	case e.Kind == "rating" && e.Value <= 2:
		class = strongNegative
	}
	if class == 0 {
		return
	}
	if class <= weak {
		u.positives++
	} else {
		u.negatives++
	}
	if !slices.Contains(f.items, e.ItemID) {
		f.items = append(f.items, e.ItemID)
	}
	u.newest = append(u.newest, plainEntry{e.ItemID, byte(kind), class, e.OccurredAt.UnixMilli(), r.Offset, hash})
	if len(u.newest) > 28 {
		if u.newest[0].class == strong {
			u.older = append(u.older, u.newest[0])
		}
		u.newest = u.newest[1:]
	}
	if len(u.older) > 24 {
		worst := slices.MaxFunc(u.older, func(a, b plainEntry) int { return cmp.Compare(a.hash, b.hash) })
		u.older = slices.DeleteFunc(u.older, func(x plainEntry) bool { return x == worst })
	}
}

func (f *plain) pairs(partition int32, out map[string][]byte) {
	le := binary.LittleEndian
	at := string(binary.BigEndian.AppendUint32(nil, uint32(partition))) + "/"
	for i, item := range f.items {
		out["n/"+at+string(binary.BigEndian.AppendUint32(nil, uint32(i)))] = []byte(item)
	}
	for user, m := range f.marks {
		sum := sha256.Sum256([]byte(user))
		out["f/"+at+string(sum[:16])] = le.AppendUint64(le.AppendUint64([]byte{1}, uint64(m[0])), uint64(m[1]))
	}
	for name, u := range f.users {
		b := []byte{1}
		for _, n := range []uint64{u.events, u.positives, u.negatives, uint64(u.last)} {
			b = le.AppendUint64(b, n)
		}
		for _, n := range []int{len(u.newest), len(u.older), len(u.seen)} {
			b = le.AppendUint16(b, uint16(n))
		}
		for _, e := range append(slices.Clone(u.newest), u.older...) {
			b = e.append(b, f.items)
		}
		for _, h := range u.seen {
			b = le.AppendUint64(b, h)
		}
		out["u/"+at+name] = b
	}
}

// digestOf asks for the digest of a state as the verb does.
func digestOf(t *testing.T, ask func(w *bytes.Buffer) error) InspectedDigest {
	t.Helper()
	var b bytes.Buffer
	var d InspectedDigest
	if err := ask(&b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// stopped is the digest of a state that nobody has open.
func (s *stand) stopped(dir string) InspectedDigest {
	s.t.Helper()
	return digestOf(s.t, func(w *bytes.Buffer) error {
		tb, err := s.config.at(dir).OpenTable(quiet)
		if err != nil {
			return err
		}
		defer tb.Close()
		return Inspect(tb, s.config.Kafka.Topics, "digest", w)
	})
}

// TestReplayIsTheLiveState folds one log three ways: live, as a replay beside
// it, and by the plain fold. The facts are the same bits; nothing is sent.
func TestReplayIsTheLiveState(t *testing.T) {
	s := newStand(t)
	s.config.Roles = []string{RoleWorker}
	s.items(20)
	s.produce("items", []byte("bad"), []byte("no JSON"))
	s.history(1, 1500)
	s.crowd("fresh", 30) // of an age that makes images
	svc, _ := s.serve()
	s.until("at rest", func() bool {
		intents, messages := svc.table.Depths() // without a prior the intents wait
		return *svc.Status().Lag.Fold == 0 && intents > 0 && messages == 0
	})
	running := digestOf(t, func(w *bytes.Buffer) error { return InspectRunning(t.Context(), s.listening(svc), "digest", w) })
	sent := len(s.read("generated")) + len(s.read("vectors")) + len(s.read("deadletter"))

	into := filepath.Join(t.TempDir(), "replay")
	res := s.replayed(s.replay(into))
	if plain := s.plainDigest(); running.SHA256 != plain || res.SHA256 != plain || s.stopped(into).SHA256 != plain {
		t.Errorf("the facts are %s live, %s replayed, %s on disk, %s by the plain fold", running.SHA256, res.SHA256, s.stopped(into).SHA256, plain)
	}
	if got := s.stopped(into).Offsets; !slices.Equal(got, running.Offsets) || len(got) != 2 {
		t.Errorf("offsets %v, the service's are %v", got, running.Offsets)
	}
	dead := map[schemas.Reason]uint64{}
	for _, r := range s.read("deadletter") {
		for _, h := range r.Headers {
			if h.Key == table.HeaderReason {
				dead[schemas.Reason(h.Value)]++
			}
		}
	}
	if n := dead[schemas.ReasonBadJSON]; n < 10 || res.DeadLetters[string(schemas.ReasonBadJSON)] != n || len(res.DeadLetters) != len(dead) {
		t.Errorf("dead letters %v, the service sent %v", res.DeadLetters, dead)
	}
	if st := svc.Status(); res.Events != st.EventsFolded || res.Duplicates == 0 || res.Forgotten == 0 || res.Users == 0 {
		t.Errorf("%+v, the service folded %d", res, st.EventsFolded)
	}
	if n := len(s.read("generated")) + len(s.read("vectors")) + len(s.read("deadletter")); n != sent {
		t.Errorf("the topics hold %d records after the replay, %d before", n, sent)
	}
	tb, err := s.config.at(into).OpenTable(quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer tb.Close()
	if intents, messages := tb.Depths(); intents+messages != 0 {
		t.Errorf("a replay left %d intents and %d messages", intents, messages)
	}
	if n := tb.Catalogue().Len(); n != 20 {
		t.Errorf("%d items are listed, want 20", n)
	}
}

// TestReplayHoweverCut folds the log in batches and parts of any size, opening
// the state again between them.
func TestReplayHoweverCut(t *testing.T) {
	s := newStand(t)
	s.history(2, 400)
	want := s.plainDigest()
	ends, err := spans(t.Context(), s.client, "feedback", 2, bound(t, "earliest"), bound(t, "latest"))
	if err != nil {
		t.Fatal(err)
	}
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		if checks++; checks > 20 { // each opens Badger a few times
			return
		}
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		o := s.config.at(dir).TableOptions(quiet)
		o.Silent = true
		var got string
		for part := rapid.IntRange(0, 3).Draw(rt, "parts"); part >= 0; part-- {
			tb, err := table.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			w := replayer(s.config, tb, newMetrics(prometheus.NewRegistry()), quiet)
			for p, end := range ends {
				if part > 0 { // the last goes to the end
					next, _, _, err := tb.Offset("feedback", int32(p))
					if err != nil {
						t.Fatal(err)
					}
					end.To = next + rapid.Int64Range(0, end.To-next).Draw(rt, "to")
				}
				var sizes []int // drawn here: the handler runs on a goroutine of its own
				for range 5 {
					sizes = append(sizes, rapid.IntRange(1, 60).Draw(rt, "batch"))
				}
				h := inBatches(w.foldFeedback(int32(p)), sizes)
				f := logFold{config: s.config.Kafka, client: s.client, table: tb, passed: new(atomic.Int64), log: quiet}
				if err := f.span(t.Context(), "feedback", end, h); err != nil {
					t.Fatal(err)
				}
			}
			got, err = tb.Digest()
			if err := errors.Join(err, tb.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if got != want {
			rt.Fatalf("the facts are %s, want %s", got, want)
		}
	})
}

// inBatches cuts what a handler gets into batches of the sizes, in turn.
func inBatches(h handler, sizes []int) handler {
	return func(ctx context.Context, records []consumer.Record, next int64) error {
		for i := 0; len(records) > sizes[i%len(sizes)]; i++ {
			n := sizes[i%len(sizes)]
			if err := h(ctx, records[:n], records[n].Offset); err != nil {
				return err
			}
			records = records[n:]
		}
		return h(ctx, records, next)
	}
}

// TestReplayGoesOn interrupts a replay, calls it again, and lets a finished one
// follow the log.
func TestReplayGoesOn(t *testing.T) {
	s := newStand(t)
	s.items(5)
	s.history(3, 300)
	into := t.TempDir()
	r := s.replay(into)
	ctx, cancel := context.WithCancel(t.Context())
	r.Progress = func(int64, int64) { cancel() }
	if _, err := r.Run(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "goes on from here") {
		t.Fatalf("error %v, want that of the interruption", err)
	}
	s.history(4, 100) // after the replay has decided where it ends
	r.Progress = nil
	plan, err := r.Plan(t.Context())
	if err != nil || !plan.Resumed || plan.Finished || plan.Left > 305 || plan.Left == 0 {
		t.Errorf("%+v, error %v", plan, err)
	}
	if res := s.replayed(r); !res.Resumed || !res.Finished || length(res.Feedback) != 300 {
		t.Errorf("%+v", res)
	}
	if res := s.replayed(r); length(res.Feedback) != 400 || res.SHA256 != s.plainDigest() {
		t.Errorf("a finished replay to latest does not follow the log: %+v", res)
	}
	fixed := s.replay(into)
	fixed.To = bound(t, "0:10,1:10")
	if _, err := fixed.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another --to, latest") {
		t.Errorf("other arguments: %v", err)
	}
	other := s.replay(into)
	other.Config.Classes.Preset = "paper"
	if _, err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another set of rules") {
		t.Errorf("other rules: %v", err)
	}
}

// TestReplayOfAPart takes offsets and times for its ends.
func TestReplayOfAPart(t *testing.T) {
	s := newStand(t)
	s.history(5, 200)
	end := make([]int64, 2)
	for p := range end {
		var err error
		if _, end[p], err = s.client.Offsets(t.Context(), "feedback", int32(p)); err != nil {
			t.Fatal(err)
		}
	}
	whole := []Span{{0, 0, end[0]}, {1, 0, end[1]}}
	for _, c := range []struct {
		from, to string
		want     []Span
	}{
		{"earliest", "latest", whole},
		{"0:5", "0:12,1:3", []Span{{0, 5, 12}, {1, 0, 3}}},
		{"0:5,1:4", "latest", []Span{{0, 5, end[0]}, {1, 4, end[1]}}},
		{"2001-01-01T00:00:00Z", time.Now().Add(time.Hour).Format(time.RFC3339), whole},
		{"10s", "latest", []Span{{0, end[0], end[0]}, {1, end[1], end[1]}}},
		{"240h", "10s", whole},
	} {
		r := s.replay(filepath.Join(t.TempDir(), "part"))
		r.From, r.To = bound(t, c.from), bound(t, c.to)
		if plan, err := r.Plan(t.Context()); err != nil || !slices.Equal(plan.Feedback, c.want) {
			t.Errorf("%s to %s: %v, error %v, want %v", c.from, c.to, plan.Feedback, err, c.want)
		}
		if _, err := os.Stat(r.Into); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a plan made %s", r.Into)
		}
		res := s.replayed(r)
		got := s.stopped(r.Into).Offsets
		for _, span := range c.want {
			if i := slices.IndexFunc(got, func(o InspectedFolded) bool { return o.Partition == span.Partition }); i < 0 && span.To > 0 || i >= 0 && got[i].Next != span.To {
				t.Errorf("%s to %s: the state is at %v", c.from, c.to, got)
			}
		}
		if n := res.Events + res.Duplicates + res.Forgotten; int64(n) > length(c.want) {
			t.Errorf("%s to %s: %d events of %d records", c.from, c.to, n, length(c.want))
		}
	}
}

// TestReplayRefuses says what is wrong, and what to do, before it makes a thing.
func TestReplayRefuses(t *testing.T) {
	s := newStand(t)
	s.history(6, 100)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "notes"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, replayFile), []byte(`{"format":9}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		mend func(*Replay)
		want string
	}{
		{"state.dir", func(r *Replay) { r.Into = s.config.State.Dir }, "is state.dir itself"},
		{"a full directory", func(r *Replay) { r.Into = full }, "is not empty and holds no replay"},
		{"another format", func(r *Replay) { r.Into = broken }, "format 9"},
		{"an offset beyond the end", func(r *Replay) { r.To = bound(t, "0:5000") }, "--to: feedback[0] holds offsets 0 to"},
		{"an unknown partition", func(r *Replay) { r.From = bound(t, "2:0") }, "--from: feedback has no partition 2"},
		{"ends the wrong way round", func(r *Replay) { r.From, r.To = bound(t, "1:9"), bound(t, "1:8") }, "--from lies behind --to in feedback[1]"},
		{"a missing topic", func(r *Replay) { r.Config.Kafka.Topics.Feedback = "absent" }, "absent"},
	} {
		into := filepath.Join(t.TempDir(), "into")
		r := s.replay(into)
		c.mend(r)
		if _, err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %q", c.name, err, c.want)
		}
		if _, err := os.Stat(into); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was made", c.name)
		}
	}
	for text, want := range map[string]string{
		"": "is not earliest", "soon": "is not earliest", "0:1,0:2": "twice", "0:-1": "is not earliest", "-5h": "future", "1:2,": "is not earliest",
	} {
		if _, err := ParseBound(text, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bound %q: error %v, want %q", text, err, want)
		}
	}
	if _, err := s.config.WithRules([]byte("kafka: {brokers: [x]}")); err == nil || !strings.Contains(err.Error(), "kafka: line 1: unknown key") {
		t.Errorf("rules with other keys: %v", err)
	}
	if c, err := s.config.WithRules([]byte("classes: {preset: paper}")); err != nil || c.rules().Classes != table.PaperClasses() || c.Window != s.config.Window {
		t.Errorf("rules: %v", err)
	}
}
