package rebeca

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rebeca/consumer"
	"rebeca/internal/broker"
	"rebeca/table"
	"rebeca/web"
)

// badItem produces a record to items[0] that is a dead letter.
func (s *stand) badItem() int64 {
	s.t.Helper()
	return s.produceTo("items", 0, []byte("bad"), []byte("no JSON")).Offset
}

// onState opens the stand's state for a moment.
func (s *stand) onState(do func(t *table.Table)) {
	s.t.Helper()
	t, err := s.config.openState(s.config.TableOptions(quiet))
	if err != nil {
		s.t.Fatal(err)
	}
	defer t.Close()
	do(t)
}

// listedBy makes a state that has listed all of items while the partitions were
// somebody else's, and has sent the dead letters of partition 0 below an offset.
func (s *stand) listedBy(buried int64) {
	s.t.Helper()
	s.onState(func(t *table.Table) {
		w := replayer(s.config, t, newMetrics(prometheus.NewRegistry()), quiet)
		for p := range int32(s.config.Kafka.Partitions) {
			_, end, err := s.client.Offsets(s.t.Context(), "items", p)
			if err != nil {
				s.t.Fatal(err)
			}
			loop := consumer.Partition{Client: s.client, Topic: "items", ID: p, Start: consumer.Earliest, Handler: w.listItems(p, false)}
			if err := loop.RunTo(s.t.Context(), end); err != nil {
				s.t.Fatal(err)
			}
		}
		if buried > 0 {
			if err := t.Claim(0, table.Claim{Epoch: 1}, "items"); err != nil {
				s.t.Fatal(err)
			}
			if _, err := t.Bury("items", 0, nil, buried); err != nil {
				s.t.Fatal(err)
			}
		}
	})
}

// TestItemsBelowTheCatalogueAreGone: the dead letters that an owner has still to
// send lie below the catalogue's position, and the log begins behind them, or is
// another one. It never touches the catalogue's position, which decides what becomes of it.
func TestItemsBelowTheCatalogueAreGone(t *testing.T) {
	for _, c := range []struct {
		name   string
		buried int64
		breaks func(s *stand, b *broker.Broker) (want []int64) // offsets of dead letters to come
		code   string                                          // of the stop that is due; "" for none
	}{
		{"the beginning, none sent", 0, goneTo(3, 0), ""},
		{"the beginning, some sent", 2, goneTo(3, 0), ""},
		{"all that was listed, and more", 2, goneTo(60, 200), ""},
		{"made anew, longer", 2, func(s *stand, b *broker.Broker) []int64 {
			s.anew(b, "items")
			s.items(60)
			return nil
		}, "other_record"},
		{"made anew, shorter", 2, func(s *stand, b *broker.Broker) []int64 {
			s.anew(b, "items")
			for range 3 {
				s.badItem()
			}
			return nil
		}, "recreated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, b := newGapStand(t)
			for range 5 {
				s.badItem()
			}
			s.items(20)
			s.listedBy(c.buried)
			want := c.breaks(s, b)
			for range 2 { // it starts again just so
				svc, stop := s.startWith(Options{})
				s.until("there", func() bool {
					if c.code != "" {
						return slices.ContainsFunc(svc.Status().Stopped, func(st web.Stopped) bool { return st.Partition == "items[0]" && st.Code == c.code })
					}
					next, err := svc.table.BuriedOffset("items", 0)
					listed, _, _, err2 := svc.table.Offset("items", 0)
					return err == nil && err2 == nil && next == listed && len(svc.Ready()) == 0 && *svc.Status().Lag.Publish == 0
				})
				stop()
			}
			places := s.places()
			for _, offset := range want {
				if !places[fmt.Sprintf("/items/0/%d", offset)] {
					t.Errorf("the dead letter of %d is not sent", offset)
				}
			}
			if len(places) != len(want) {
				t.Errorf("dead letters of %v are sent, want those of %v", places, want)
			}
		})
	}
}

// goneTo produces more items, deletes the records of items[0] below an offset,
// and produces a bad one behind all.
func goneTo(first int64, more int) func(s *stand, b *broker.Broker) []int64 {
	return func(s *stand, b *broker.Broker) (want []int64) {
		s.items(more)
		if err := b.Cluster().DeleteRecords("items", 0, first); err != nil {
			s.t.Fatal(err)
		}
		for offset := first; offset < 5; offset++ {
			want = append(want, offset)
		}
		return append(want, s.badItem())
	}
}

// TestPromotionSendsDeadLettersOfItems: the state that is replaced owes those of
// records below the catalogue's position, and those that it folds on the way.
func TestPromotionSendsDeadLettersOfItems(t *testing.T) {
	s, _ := newGapStand(t)
	var want []int64
	for range 4 {
		want = append(want, s.badItem())
	}
	s.items(20)
	s.listedBy(1)
	want = want[1:]
	for range 3 {
		want = append(want, s.badItem())
	}
	r := s.replay(t.TempDir())
	s.replayed(r)
	s.promoted(r.Into)
	s.onState(func(tb *table.Table) {
		out, err := tb.Outbox(0, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range out {
			for _, h := range o.Headers {
				if h.Key == table.HeaderOffset {
					got = append(got, string(h.Value))
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("dead letters of %v wait, want those of %v", got, want)
		}
	})
}
