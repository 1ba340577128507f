package table

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"rebeca/schemas"
)

// resendLog sends ids again at distances around the length of the window: within it, at its edge and beyond.
func resendLog(users, n, window int) []Record {
	rng := rand.New(rand.NewPCG(1, uint64(window)))
	sent := map[string][]string{}
	log := make([]Record, n)
	for offset := range log {
		user := fmt.Sprint("user-", rng.IntN(users))
		r := event(int64(offset), user, fmt.Sprint("item-", rng.IntN(20)), schemas.Kinds()[rng.IntN(2)])
		if back := window + rng.IntN(5) - 2; rng.IntN(3) == 0 && back >= 1 && back <= len(sent[user]) {
			r.Feedback.EventID = sent[user][len(sent[user])-back]
		} else {
			sent[user] = append(sent[user], r.Feedback.EventID)
		}
		log[offset] = r
	}
	return log
}

// An event id counts once among the user's last distinct ids, exactly, for any length of the window and whatever batches and restarts: the
// model looks through all ids ever accepted.
func TestResendsCountOnce(t *testing.T) {
	for _, c := range []struct{ window, users, events int }{{1, 3, 300}, {2, 3, 300}, {7, 3, 600}, {64, 3, 1000}, {256, 2, 1500}, {4096, 1, 6000}} {
		t.Run(fmt.Sprint("window=", c.window), func(t *testing.T) {
			rules := DefaultRules()
			rules.Dedupe = c.window
			m := newModel(rules)
			log := resendLog(c.users, c.events, c.window)
			for _, r := range log {
				m.apply(r)
			}
			want := ""
			for _, largest := range []int{c.events, 40} {
				o := options(t.TempDir())
				o.Rules, o.CacheBytes = rules, 5000
				table := open(t, o)
				rng := rand.New(rand.NewPCG(2, uint64(largest)))
				var sum Folded
				for rest := log; len(rest) > 0; {
					n := min(len(rest), 1+rng.IntN(largest))
					f := fold(t, table, rest[:n]...)
					sum.Events, sum.Duplicates = sum.Events+f.Events, sum.Duplicates+f.Duplicates
					if rest = rest[n:]; rng.IntN(40) == 0 {
						table = reopen(t, table)
					}
				}
				if sum.Events != m.events || sum.Duplicates != m.duplicates || m.duplicates == 0 {
					t.Errorf("batches of %d: %d events, %d duplicates; model %d, %d", largest, sum.Events, sum.Duplicates, m.events, m.duplicates)
				}
				compare(t, table, m)
				if got := digest(t, table); want == "" {
					want = got
				} else if got != want {
					t.Error("the facts differ between batches")
				}
			}
		})
	}
}
