package rebeca

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"rebeca/consumer"
	"rebeca/internal/broker"
	"rebeca/schemas"
)

// newGapStand is a stand whose broker the test may change.
func newGapStand(t *testing.T) (*stand, *broker.Broker) {
	t.Helper()
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s := standOn(t, b.Addr())
	s.config.Roles, s.config.Generate.Count = []string{RoleWorker}, 0
	return s, b
}

// userIn is a user of a partition.
func (s *stand) userIn(p int32) string {
	for i := 0; ; i++ {
		if u := fmt.Sprintf("user-%d", i); schemas.Partition([]byte(u), s.config.Kafka.Partitions) == p {
			return u
		}
	}
}

func (s *stand) events(user, run string, n int) {
	for i := range n {
		s.feedback(schemas.Feedback{EventID: fmt.Sprintf("%s-%s-%d", user, run, i), UserID: user, ItemID: "x", Kind: schemas.KindLike})
	}
}

// anew deletes a topic and makes it again.
func (s *stand) anew(b *broker.Broker, topic string) {
	s.t.Helper()
	if err := b.Cluster().DeleteTopic(topic); err != nil {
		s.t.Fatal(err)
	}
	if _, err := consumer.EnsureTopics(s.t.Context(), s.client, s.config.WantedTopics(), 1); err != nil {
		s.t.Fatal(err)
	}
}

// TestGapsStopByNameOrAreRecorded breaks the log of partition 0 in each way: by default it stops by name and the other
// goes on; told to record, it goes on from where the log begins, and the state says what happened.
func TestGapsStopByNameOrAreRecorded(t *testing.T) {
	for _, c := range []struct {
		code, kind string
		breaks     func(s *stand, b *broker.Broker, u0, u1 string)
		events     int // of the user of partition 0 in the end: what is lost stays folded where it was
	}{
		{"gap", "gap", func(s *stand, b *broker.Broker, u0, _ string) {
			s.events(u0, "lost", 3)
			if err := b.Cluster().DeleteRecords("feedback", 0, 7); err != nil {
				s.t.Fatal(err)
			}
		}, 6},
		{"recreated", "recreated", func(s *stand, b *broker.Broker, u0, u1 string) {
			s.anew(b, "feedback")
			s.events(u0, "again", 2)
			s.events(u1, "again", 5)
		}, 7},
		{"other_record", "other record", func(s *stand, b *broker.Broker, u0, u1 string) {
			s.anew(b, "feedback")
			s.events(u0, "again", 9)
		}, 14},
	} {
		t.Run(c.code, func(t *testing.T) {
			s, b := newGapStand(t)
			u0, u1 := s.userIn(0), s.userIn(1)
			svc, stop := s.serve()
			s.events(u0, "a", 5)
			s.events(u1, "a", 1)
			s.until("folded", func() bool { return svc.Status().EventsFolded == 6 })
			stop()
			c.breaks(s, b, u0, u1)
			s.events(u1, "b", 2)

			svc, stop = s.startWith(Options{})
			s.until("stopped", func() bool {
				for _, st := range svc.Status().Stopped {
					if st.Partition == "feedback[0]" && st.Code == c.code && strings.HasPrefix(st.Message, c.kind+": feedback[0]: ") {
						return true
					}
				}
				return false
			})
			if c.code == "gap" { // where only partition 0 is broken, the other goes on
				s.until("the other partition", func() bool { return svc.Status().EventsFolded == 2 })
			}
			if body := fmt.Sprint(svc.Ready()); !strings.Contains(body, "partition_stopped") || !strings.Contains(body, c.kind+": feedback[0]") {
				t.Errorf("ready says %s", body)
			}
			stop()

			s.config.Kafka.OnGap = OnGapRecord
			svc, stop = s.serve()
			s.until("recorded", func() bool { return svc.Status().GapsAccepted > 0 && len(svc.Status().Stopped) == 0 })
			s.until("folded", func() bool { return *svc.Status().Lag.Fold == 0 })
			if !strings.Contains(get(t, svc.URL()+"/metrics"), fmt.Sprintf(`rebeca_gaps_accepted_total{kind=%q,topic="feedback"}`, c.kind)) {
				t.Error("/metrics does not count it")
			}
			if row, _, err := svc.table.User(u0); err != nil || int(row.Events) != c.events {
				t.Errorf("%d events of %s (%v), want %d", row.Events, u0, err, c.events)
			}
			var out bytes.Buffer
			if err := Inspect(svc.table, s.config.Kafka.Topics, "offsets", &out); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), fmt.Sprintf(`"gaps":[{"kind":%q,"from":5,`, c.kind)) {
				t.Errorf("inspect offsets says %s", out.String())
			}
			digest := mustDigest(t, svc)
			stop()

			// What was accepted once is not asked again, and not folded twice.
			s.config.Kafka.OnGap = OnGapFail
			svc, stop = s.serve()
			defer stop()
			if got := mustDigest(t, svc); got != digest {
				t.Error("the next start folds something again")
			}
		})
	}
}

// TestFirstStartOnAnOldLog: a log that begins behind 0 is noted, not refused.
func TestFirstStartOnAnOldLog(t *testing.T) {
	s, b := newGapStand(t)
	u0 := s.userIn(0)
	s.events(u0, "a", 5)
	if err := b.Cluster().DeleteRecords("feedback", 0, 3); err != nil {
		t.Fatal(err)
	}
	svc, _ := s.serve()
	s.until("folded", func() bool { return svc.Status().EventsFolded == 2 })
	gaps, total, err := svc.table.Gaps("feedback", 0)
	if err != nil || total != 1 || gaps[0].Kind != string(consumer.GapBegin) || gaps[0].To != 3 {
		t.Errorf("noted %v of %d, %v", gaps, total, err)
	}
	if n := svc.Status().GapsAccepted; n != 0 {
		t.Errorf("%d gaps are counted", n)
	}
}

// TestGapsOfOtherTopics: requests and items are watched as feedback is.
func TestGapsOfOtherTopics(t *testing.T) {
	s, b := newGapStand(t)
	s.items(20)
	svc, stop := s.serve()
	s.until("listed", func() bool { return svc.table.Catalogue().Len() == 20 })
	stop()
	s.anew(b, "items")
	s.items(60)
	for range 3 {
		s.produce("requests", []byte(s.userIn(0)), []byte("{}")) // dead letters
	}
	if err := b.Cluster().DeleteRecords("requests", 0, 2); err != nil {
		t.Fatal(err)
	}
	svc, _ = s.startWith(Options{})
	s.until("stopped", func() bool {
		codes := map[string]string{}
		for _, st := range svc.Status().Stopped {
			codes[st.Partition] = st.Code
		}
		return codes["requests[0]"] == "gap" && codes["items[0]"] == "other_record"
	})
	if err := svc.onGap(&consumer.GapError{Kind: consumer.GapLost}); !errors.As(err, new(*consumer.GapError)) {
		t.Errorf("the default accepts: %v", err)
	}
}
