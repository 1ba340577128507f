package rebeca

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rebeca/consumer"
	"rebeca/schemas"
)

// TestReplayOfABrokenLog: what a replay finds missing stops it by name, or is
// recorded, as the service does; another log is never folded behind the first.
func TestReplayOfABrokenLog(t *testing.T) {
	t.Run("holes", func(t *testing.T) {
		s, b := newGapStand(t)
		if err := b.Cluster().DeleteTopic("feedback"); err != nil {
			t.Fatal(err)
		}
		if err := b.Cluster().CreateTopic("feedback", 2, map[string]string{"cleanup.policy": "compact"}); err != nil {
			t.Fatal(err)
		}
		u, other := s.userIn(0), ""
		for i := 0; other == "" || other == u || schemas.Partition([]byte(other), 2) != 0; i++ {
			other = fmt.Sprint("other-", i)
		}
		s.events(u, "a", 1)
		s.events(other, "a", 1) // applied last, and still there when it is gone on
		r := s.replay(t.TempDir())
		s.replayed(r)
		s.events(u, "b", 6)
		b.Cluster().Compact()
		_, err := r.Run(t.Context())
		var gap *consumer.GapError
		if !errors.As(err, &gap) || gap.Kind != consumer.GapLost || gap.Topic != "feedback" || gap.Stored != 2 || !strings.Contains(err.Error(), "kafka.on_gap") {
			t.Fatalf("error %v, want a gap by name", err)
		}
		r.Config.Kafka.OnGap = OnGapRecord
		res := s.replayed(r)
		if !res.Finished || res.Events == 0 || res.Events >= 6 {
			t.Errorf("%+v", res)
		}
		got := s.stopped(r.Into).Offsets
		if len(got) == 0 || got[0].Next != 8 {
			t.Errorf("the state is at %v", got)
		}
	})
	t.Run("another log", func(t *testing.T) {
		s, b := newGapStand(t)
		u := s.userIn(0)
		s.events(u, "a", 3)
		r := s.replay(t.TempDir())
		s.replayed(r)
		want := s.stopped(r.Into)
		s.anew(b, "feedback")
		s.events(u, "again", 8)
		r.Config.Kafka.OnGap = OnGapRecord
		_, err := r.Run(t.Context())
		var gap *consumer.GapError
		if !errors.As(err, &gap) || gap.Kind != consumer.GapOther || !strings.Contains(err.Error(), "is of one log") {
			t.Errorf("error %v, want another record by name", err)
		}
		if got := s.stopped(r.Into); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the state is %+v, was %+v", got, want)
		}
	})
}
