package rebeca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rebeca/consumer"
	"rebeca/schemas"
	"rebeca/table"
)

// loved is feedback of a kind that there is not.
func loved(user, event string) []byte {
	return fmt.Appendf(nil, `{"event_id":%q,"user_id":%q,"item_id":"i","kind":"loved","occurred_at":%q}`,
		event, user, time.Now().UTC().Format(time.RFC3339))
}

func (s *stand) letters() DeadLetters { return DeadLetters{Config: s.config, Client: s.client} }

// redrive runs a call and returns why each letter stays, "" for one that goes.
func (s *stand) redrive(mend func(*Redrive)) (RedriveResult, map[string]string, error) {
	s.t.Helper()
	stays := map[string]string{}
	r := Redrive{DeadLetters: s.letters(), Tell: func(l Redriven) {
		stays[fmt.Sprintf("%s %d:%d", l.Reason, l.Partition, l.Offset)] = l.Left
		if sent := l.To != nil; sent == (l.Left != "") {
			s.t.Errorf("%+v is neither sent nor left", l)
		}
	}}
	mend(&r)
	res, err := r.Run(s.t.Context())
	return res, stays, err
}

func (s *stand) listed(f LetterFilter) (out []DeadLetter) {
	s.t.Helper()
	d := s.letters()
	d.Filter = f
	if err := d.Each(s.t.Context(), func(l DeadLetter) error {
		out = append(out, l)
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// mourning is a service that only folds, and a way to wait for it.
func (s *stand) mourning() (svc *Service, dead func(n int)) {
	s.t.Helper()
	s.config.Roles = []string{RoleWorker}
	svc, _ = s.serve()
	return svc, func(n int) {
		s.t.Helper()
		s.until(fmt.Sprintf("%d dead letters", n), func() bool {
			l := svc.Status().Lag
			return *l.Fold == 0 && *l.Publish == 0 && len(s.listed(LetterFilter{})) == n
		})
	}
}

// TestDeadLettersAreListed with their place and bytes, as the filter says.
func TestDeadLettersAreListed(t *testing.T) {
	s := newStand(t)
	_, dead := s.mourning()
	odd := []byte("\xff\x00 no text")
	at := s.produce("feedback", []byte("u"), odd)
	s.produce("items", []byte("i"), []byte("no JSON"))
	s.produce("feedback", []byte("u"), loved("u", "e"))
	dead(3)
	// A stranger's record on the topic is listed, and does no harm.
	if _, err := s.client.Produce(t.Context(), "deadletter", 1, []consumer.Message{{Key: []byte("k"), Value: []byte("v"),
		Headers: []schemas.Header{{Key: table.HeaderPartition, Value: []byte("x")}, {Key: table.HeaderAttempt, Value: []byte("-7")}}}}); err != nil {
		t.Fatal(err)
	}
	all := s.listed(LetterFilter{})
	if len(all) != 4 || !slices.IsSortedFunc(all, func(a, b DeadLetter) int { return int(a.Partition-b.Partition)*1000 + int(a.Offset-b.Offset) }) {
		t.Fatalf("%+v", all)
	}
	bad := s.listed(LetterFilter{Reasons: []schemas.Reason{schemas.ReasonBadJSON}, Topic: "feedback"})
	if len(bad) != 1 || bad[0].Topic != "feedback" || bad[0].SourcePartition != at.Partition || bad[0].SourceOffset != at.Offset || bad[0].Key != "u" ||
		bad[0].Bytes != len(odd) || bad[0].Message == "" || bad[0].Attempts != 0 {
		t.Fatalf("%+v", bad)
	}
	d := s.letters()
	got, err := d.Get(t.Context(), schemas.Position{Partition: bad[0].Partition, Offset: bad[0].Offset})
	if err != nil || !bytes.Equal(got.Record.Value, odd) || got.Reason != bad[0].Reason {
		t.Errorf("%+v, error %v", got, err)
	}
	for name, c := range map[string]struct {
		f    LetterFilter
		want int
	}{
		"two reasons": {LetterFilter{Reasons: []schemas.Reason{schemas.ReasonBadJSON, schemas.ReasonUnknownKind}}, 3},
		"a topic":     {LetterFilter{Topic: "items"}, 1},
		"since":       {LetterFilter{Since: time.Now().Add(-time.Hour)}, 4},
		"since later": {LetterFilter{Since: time.Now().Add(time.Hour)}, 0},
		"until":       {LetterFilter{Until: time.Now().Add(-time.Hour)}, 0},
	} {
		if n := len(s.listed(c.f)); n != c.want {
			t.Errorf("%s: %d letters, want %d", name, n, c.want)
		}
	}
	if err := (LetterFilter{Reasons: []schemas.Reason{"sad"}}).Validate(); err == nil {
		t.Error("a reason that there is not is taken")
	}
	stop := errors.New("enough")
	if err := d.Each(t.Context(), func(DeadLetter) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want the reader's", err)
	}
	for _, at := range []schemas.Position{{Partition: 2}, {Partition: 0, Offset: 99}, {Partition: -1}} {
		if _, err := d.Get(t.Context(), at); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: error %v, want one line", at, err)
		}
	}
	d.Config.Kafka.Topics.DeadLetter = "absent"
	if err := d.Each(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "rebeca topics create") {
		t.Errorf("a missing topic: %v", err)
	}
	res, stays, err := s.redrive(func(r *Redrive) { r.Force = true; r.At = []schemas.Position{{Partition: 1, Offset: all[3].Offset}} })
	if err != nil || res.Redriven != 0 || res.Left != 1 {
		t.Errorf("a stranger's record: %+v, %v, error %v", res, stays, err)
	}
}

// TestRedrive mends what a producer did wrong: each event counts once, however
// often it is sent, under its own key and id.
func TestRedrive(t *testing.T) {
	s := newStand(t)
	svc, dead := s.mourning()
	own := schemas.Partition([]byte("u"), 2)
	s.produce("feedback", []byte("u"), loved("u", "e1"))
	s.produceTo("feedback", 1-own, []byte("u"), bytes.Replace(loved("u", "e2"), []byte("loved"), []byte("like"), 1))
	s.produce("items", []byte("i"), []byte(`{"item_id":"i","embedding":[1,2]}`))
	s.produce("requests", []byte("u"), []byte(`{"request_id":"r","user_id":"u","count":0}`))
	dead(4)
	whole := func(r *Redrive) { r.Edit = `sed 's/loved/like/; s/\[1,2\]/[1,2,3,4,5,6,7,8]/; s/"count":0/"count":1/'` }

	res, stays, err := s.redrive(func(r *Redrive) { r.DryRun, r.Tell = true, nil; whole(r) })
	if err != nil || res.Redriven != 4 || len(s.read("feedback")) != 2 {
		t.Fatalf("dry run: %+v, %v, error %v", res, stays, err)
	}
	res, stays, err = s.redrive(func(*Redrive) {}) // the partition is mended by itself
	if err != nil || res.Redriven != 1 || res.Left != 3 {
		t.Fatalf("%+v, %v, error %v", res, stays, err)
	}
	for letter, why := range stays {
		if strings.HasPrefix(letter, "wrong_partition") != (why == "") || why != "" && !strings.HasPrefix(why, "would come back: "+strings.Fields(letter)[0]) {
			t.Errorf("%s stays: %q", letter, why)
		}
	}
	if res, stays, err = s.redrive(whole); err != nil || res.Redriven != 3 || res.Left != 1 {
		t.Fatalf("%+v, %v, error %v", res, stays, err)
	}
	if res, stays, err = s.redrive(whole); err != nil || res.Redriven != 0 || res.Left != 4 {
		t.Errorf("the same again: %+v, %v, error %v", res, stays, err)
	}
	s.until("folded", func() bool { return svc.Status().EventsFolded == 2 && svc.table.Catalogue().Len() == 1 })
	if res, _, err = s.redrive(func(r *Redrive) { whole(r); r.Force = true }); err != nil || res.Redriven != 4 {
		t.Errorf("by force: %+v, error %v", res, err)
	}
	dead(4) // nothing has come back
	if st := svc.Status(); st.EventsFolded != 2 {
		t.Errorf("%d events are folded, want 2", st.EventsFolded)
	}
	row, _, err := svc.table.User("u")
	if err != nil || row.Positives != 2 {
		t.Errorf("%+v, error %v", row, err)
	}
	for _, r := range s.read("feedback") {
		if string(r.Key) != "u" {
			t.Errorf("a record of key %q", r.Key)
		}
	}
	if intents, _ := svc.table.Depths(); intents == 0 {
		t.Error("the mended request waits nowhere")
	}
}

// TestRedrivenDoesNotLoop sends the same nonsense again and again.
func TestRedrivenDoesNotLoop(t *testing.T) {
	s := newStand(t)
	svc, dead := s.mourning()
	s.produce("feedback", []byte("u"), []byte("no JSON"))
	s.produce("requests", []byte("u"), []byte("no JSON"))
	s.produce("items", []byte("u"), []byte("no JSON"))
	dead(3)
	for attempt := 1; attempt <= maxRedrives; attempt++ {
		newest := s.listed(LetterFilter{})[3*attempt-3:] // all of one partition: those of user u
		res, stays, err := s.redrive(func(r *Redrive) {
			r.Force = true
			for _, l := range newest {
				r.At = append(r.At, schemas.Position{Partition: l.Partition, Offset: l.Offset})
			}
		})
		if err != nil || res.Redriven != 3 {
			t.Fatalf("attempt %d: %+v, %v, error %v", attempt, res, stays, err)
		}
		dead(3 + 3*attempt)
		for _, l := range s.listed(LetterFilter{})[3*attempt:] {
			want := schemas.ReasonBadJSON
			if attempt == maxRedrives {
				want = schemas.ReasonRedriven
			}
			if l.Attempts != attempt || l.Reason != string(want) {
				t.Errorf("after attempt %d: %+v", attempt, l)
			}
		}
	}
	last := s.listed(LetterFilter{Reasons: []schemas.Reason{schemas.ReasonRedriven}})
	if len(last) != 3 || !strings.Contains(last[0].Message, "bad_json") {
		t.Errorf("%+v", last)
	}
	res, stays, err := s.redrive(func(r *Redrive) {
		r.Filter.Reasons = []schemas.Reason{schemas.ReasonRedriven}
		r.Edit = `echo '{"event_id":"e","user_id":"u","item_id":"i","kind":"like","occurred_at":"2026-01-01T00:00:00Z"}'`
	})
	if err != nil || res.Redriven != 0 || res.Left != 3 {
		t.Errorf("what has come back three times: %+v, %v, error %v", res, stays, err)
	}
	families, err := svc.options.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "rebeca_deadletters_total" {
			for _, m := range f.GetMetric() {
				counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if counted["redriven"] != 3 || counted["bad_json"] != 9 {
		t.Errorf("/metrics has %v", counted)
	}
}

// TestRedriveEdits holds what an edit may do, and that a failing one ends or
// skips as asked, with what came before it sent.
func TestRedriveEdits(t *testing.T) {
	s := newStand(t)
	_, dead := s.mourning()
	s.produce("feedback", []byte("u"), loved("u", "e1"))
	s.produce("feedback", []byte("u"), loved("u", "e2"))
	s.produceTo("feedback", 1-schemas.Partition([]byte("w"), 2), []byte("w"), nil) // a forget, misplaced: it stays
	dead(3)
	for name, c := range map[string]struct {
		edit, want string
	}{
		"fails":         {"echo oh dear >&2; exit 3", "exit status 3: oh dear"},
		"gives nothing": {"true", "gave no value"},
		"is not there":  {"no-such-command-here", "exit status 127"},
		"another event": {"sed s/e1/e9/", `changes event_id from "e1" to e9`},
		"no event":      {`echo '{"a":1}'`, `changes event_id from "e1"`},
	} {
		_, stays, err := s.redrive(func(r *Redrive) { r.Edit, r.DryRun, r.Tell = c.edit, true, nil })
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "editing the dead letter") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %q (%v)", name, err, c.want, stays)
		}
	}
	before := len(s.read("feedback"))
	picky := func(r *Redrive) {
		r.Edit = `test "$REBECA_REASON $REBECA_TOPIC $REBECA_KEY" = "unknown_kind feedback u" && sed 's/loved/like/' | grep -v e2`
	}
	res, stays, err := s.redrive(picky)
	if err == nil || res.Redriven == 0 || len(s.read("feedback")) == before {
		t.Errorf("what came before a failing edit is not sent: %+v, %v, error %v", res, stays, err)
	}
	res, stays, err = s.redrive(func(r *Redrive) { picky(r); r.Skip = true })
	if err != nil || res.Left < 1 {
		t.Errorf("%+v, %v, error %v", res, stays, err)
	}
	var values []string
	for _, r := range s.read("feedback") {
		for _, h := range r.Headers {
			if h.Key == table.HeaderAttempt && string(h.Value) == "1" {
				values = append(values, string(r.Value))
			}
		}
	}
	if len(values) != 1 || !slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, `"kind":"like"`) }) {
		t.Errorf("redriven: %q", values)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := Redrive{DeadLetters: s.letters(), Edit: "sleep 60", Skip: true, Force: true}
	began := time.Now()
	if _, err := r.Run(ctx); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("an edit that hangs ends with %v after %s", err, time.Since(began))
	}
}

// TestRedriveRemembers over a line that a crash cut short.
func TestRedriveRemembers(t *testing.T) {
	s := newStand(t)
	_, dead := s.mourning()
	mend := func(r *Redrive) { r.Edit = "sed s/loved/like/" }
	for i := range 2 {
		s.produce("feedback", []byte("u"), loved("u", fmt.Sprint("e", i)))
		dead(i + 1)
		if res, stays, err := s.redrive(mend); err != nil || res.Redriven != 1 || res.Left != i {
			t.Fatalf("%+v, %v, error %v", res, stays, err)
		}
		file := filepath.Join(s.config.State.Dir, redrivenFile)
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(`{"letter":"0:`)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if res, stays, err := s.redrive(mend); err != nil || res.Redriven != 0 || res.Left != 2 {
		t.Errorf("%+v, %v, error %v", res, stays, err)
	}
}

// FuzzLetter reads whatever stands on the dead-letter topic.
func FuzzLetter(f *testing.F) {
	f.Add("bad_json", "m", "feedback", "0", "12", "1")
	f.Add("", "", "", "-1", "x", "999999999999999999999")
	f.Fuzz(func(t *testing.T, reason, message, topic, partition, offset, attempt string) {
		var r consumer.Record
		for _, h := range [][2]string{{table.HeaderReason, reason}, {table.HeaderMessage, message}, {table.HeaderTopic, topic},
			{table.HeaderPartition, partition}, {table.HeaderOffset, offset}, {table.HeaderAttempt, attempt}} {
			r.Headers = append(r.Headers, schemas.Header{Key: h[0], Value: []byte(h[1])})
		}
		l := letter(r)
		if l.Attempts < 0 || attempt != "" && l.Attempts == 0 {
			t.Errorf("attempts %d of %q", l.Attempts, attempt)
		}
		if l.ours && (l.Reason == "" || l.Topic == "") {
			t.Errorf("%+v", l)
		}
		dead := again(r, &schemas.Rejection{Reason: schemas.ReasonBadJSON})
		if looped := l.Attempts >= maxRedrives; looped != (dead.Reason == schemas.ReasonRedriven) {
			t.Errorf("%d attempts: %s", l.Attempts, dead.Reason)
		}
	})
}

// TestRedrivenForgetIsAsked: a null that came in the wrong partition forgets nobody; sent weeks later it would take what came since along, so it stays unless it
// is forced.
func TestRedrivenForgetIsAsked(t *testing.T) {
	s := newStand(t)
	svc, dead := s.mourning()
	user := s.users()[0]
	s.produceTo("feedback", 1, []byte(user), nil)
	dead(1)
	s.feedback(schemas.Feedback{EventID: "e", UserID: user, ItemID: "i", Kind: schemas.KindLike})
	s.until("folded", func() bool { return svc.metrics.eventsN.Load() == 1 })
	res, stays, err := s.redrive(func(r *Redrive) {})
	if err != nil || res.Redriven != 0 || res.Left != 1 || !strings.Contains(fmt.Sprint(stays), "forgets a user") {
		t.Errorf("%+v, %v, error %v", res, stays, err)
	}
	if res, _, err = s.redrive(func(r *Redrive) { r.Force = true }); err != nil || res.Redriven != 1 {
		t.Errorf("forced: %+v, error %v", res, err)
	}
	s.until("forgotten", func() bool { _, there, err := svc.table.User(user); return err == nil && !there })
}
