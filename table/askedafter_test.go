package table

import (
	"testing"

	"rebeca/schemas"
)

// publish plays the relay: it sends images to a topic that holds every id once.
func publish(t *testing.T, topic map[string]string, out ...Outgoing) {
	t.Helper()
	for _, o := range out {
		if o.Role != RoleGenerated {
			continue
		}
		id := string(o.header(headerID))
		if _, twice := topic[id]; twice {
			t.Errorf("%s is published twice", id)
		}
		topic[id] = string(o.Value)
	}
}

// A request is made after its user is forgotten, and read and answered before the forget is: what of the answer was not sent is of the
// life before and goes, and the request is answered anew, each id once, whatever of it was on its way.
func TestForgetAnswersLaterRequestsAnew(t *testing.T) {
	const user, count = "a", 5
	request := func(t *testing.T, table *Table) Intent {
		fold(t, table, event(0, user, "x", schemas.KindLike))
		for _, in := range intents(t, table) {
			complete(t, table, finished(t, in, timeAt(1), "1-a"))
		}
		trimAll(t, table)
		return accept(t, table, 8, ask(2, user, "early", 1), ask(9, user, "r", count))[1]
	}
	trim := func(t *testing.T, table *Table, out []Outgoing) {
		t.Helper()
		if err := table.Trim(0, out, Position{Topic: "generated", Next: int64(len(out))}); err != nil {
			t.Fatal(err)
		}
	}
	forgetting := forget(3, user) // at the time of offset 3: the request, of 9, is later
	answer := func(t *testing.T, table *Table) {
		t.Helper()
		for _, in := range intents(t, table) {
			complete(t, table, finished(t, in, timeAt(20), "2-b"))
		}
	}
	for name, run := range map[string]func(t *testing.T, table *Table, topic map[string]string, first []Outgoing) *Table{
		"all unsent": func(t *testing.T, table *Table, topic map[string]string, first []Outgoing) *Table {
			fold(t, table, forgetting)
			answer(t, table)
			return table
		},
		"some sent": func(t *testing.T, table *Table, topic map[string]string, first []Outgoing) *Table {
			publish(t, topic, first[:2]...)
			trim(t, table, first[:2])
			fold(t, table, forgetting)
			answer(t, table)
			return table
		},
		"some on their way, answered after their acknowledgement": func(t *testing.T, table *Table, topic map[string]string, first []Outgoing) *Table {
			fold(t, table, forgetting)
			publish(t, topic, first[:3]...)
			trim(t, table, first[:3])
			answer(t, table)
			return table
		},
		"some on their way, answered before their acknowledgement": func(t *testing.T, table *Table, topic map[string]string, first []Outgoing) *Table {
			fold(t, table, forgetting)
			publish(t, topic, first[:3]...)
			answer(t, table)
			trim(t, table, first[:3])
			return table
		},
		"some on their way, killed within their acknowledgement": func(t *testing.T, table *Table, topic map[string]string, first []Outgoing) *Table {
			fold(t, table, forgetting)
			publish(t, topic, first[:3]...)
			p := table.partitions[0]
			p.mu.Lock()
			gone, err := table.recalledOf(p, first[:3]) // the first half of Trim; the position has not passed them yet
			if err == nil {
				_, err = table.found(p, gone, Position{})
			}
			p.mu.Unlock()
			if err != nil || len(gone) != 3 {
				t.Fatalf("%d images are missed, error %v", len(gone), err)
			}
			table = reopen(t, table)
			answer(t, table)
			return table
		},
		"some on their way, found after a crash": func(t *testing.T, table *Table, topic map[string]string, first []Outgoing) *Table {
			fold(t, table, forgetting)
			publish(t, topic, first[:3]...)
			table = reopen(t, table)
			sent(t, table, "generated", 3, messages(first[:3]...)...)
			answer(t, table)
			return table
		},
	} {
		t.Run(name, func(t *testing.T) {
			table := open(t, options(t.TempDir()))
			in := request(t, table)
			complete(t, table, finished(t, in, timeAt(10), "1-a"))
			first := outbox(t, table)[:count]
			topic := map[string]string{}
			table = run(t, table, topic, first)
			out := outbox(t, table)
			publish(t, topic, out...)
			trim(t, table, out)
			for k := range count {
				if topic[schemas.ID(in.Source, k)] == "" {
					t.Errorf("image %d of the request is not answered", k)
				}
			}
			if n := len(topic); n != count {
				t.Errorf("%d images on the topic, want %d: of a request before the forget too", n, count)
			}
			if again := accept(t, table, 12, ask(12, user, "r", count)); len(again) != 0 {
				t.Errorf("the request is remembered no longer: %+v", again)
			}
			if left := intents(t, table); len(left) != 0 || table.Unsent(0) != 0 {
				t.Errorf("left: %+v, %d messages", left, table.Unsent(0))
			}
		})
	}
}
