//go:build kafka

package kafka

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A small world: items in clusters of the embedding space, and users who like one cluster each.
const (
	dim      = 16
	clusters = 8
	items    = 320
	users    = 24
)

func itemID(i int) string { return fmt.Sprintf("item-%03d", i) }

func userID(u int) string {
	if u%6 == 5 {
		return fmt.Sprintf("personne-é-%02d", u)
	}
	return fmt.Sprintf("user-%02d", u)
}

// catalogue returns the records of topic items: the i-th lies in cluster i mod clusters, whose centre is 3 on one axis.
func catalogue(rng *rand.Rand) []message {
	var all []message
	for i := range items {
		embedding := make([]float64, dim)
		for d := range embedding {
			embedding[d] = .3 * rng.NormFloat64()
		}
		embedding[i%clusters] += 3
		all = append(all, message{itemID(i), marshal(map[string]any{"item_id": itemID(i), "embedding": embedding})})
	}
	return all
}

// happened is one event of topic feedback as its producer knows it.
type happened struct {
	EventID    string   `json:"event_id"`
	UserID     string   `json:"user_id"`
	ItemID     string   `json:"item_id"`
	Kind       string   `json:"kind"`
	Value      *float64 `json:"value,omitempty"`
	OccurredAt string   `json:"occurred_at"`
}

// stream makes the records of feedback. Ids carry on from first. One in twenty is sent again a little later, and every kind occurs.
func stream(rng *rand.Rand, first, count int) []message {
	var all []message
	for n := first; n < first+count; n++ {
		u, i := rng.IntN(users), rng.IntN(items)
		e := happened{
			EventID: fmt.Sprintf("event-%06d", n), UserID: userID(u), ItemID: itemID(i),
			OccurredAt: time.Now().UTC().Format(time.RFC3339Nano),
		}
		e.Kind, e.Value = react(rng, i%clusters == u%clusters)
		all = append(all, message{e.UserID, marshal(e)})
		if rng.IntN(20) == 0 {
			all = append(all, all[max(0, len(all)-1-rng.IntN(5))])
		}
	}
	return all
}

func react(rng *rand.Rand, match bool) (kind string, value *float64) {
	number := func(v float64) *float64 { return &v }
	pick := rng.IntN(10)
	switch {
	case pick == 0:
		return "view", number(float64(rng.IntN(30)))
	case pick == 1 && match:
		return "rating", number(5)
	case pick == 1:
		return "rating", number(float64(1 + rng.IntN(3)))
	case pick == 2 && rng.IntN(3) == 0:
		return "undo", nil
	case pick == 3 && match:
		return "click", nil
	case pick == 3:
		return "skip", nil
	case match:
		return "like", nil
	}
	return "dislike", nil
}

// spoilt is a record that must come back as a dead letter.
type spoilt struct {
	topic  string
	reason string
	message
}

func spoiltRecords() []spoilt {
	now := time.Now().UTC()
	event := func(change func(fields map[string]any)) message {
		fields := map[string]any{
			"event_id": "spoilt", "user_id": userID(0), "item_id": itemID(0), "kind": "like", "occurred_at": now.Format(time.RFC3339),
		}
		change(fields)
		return message{userID(0), marshal(fields)}
	}
	at := func(year int) message {
		return event(func(f map[string]any) { f["occurred_at"] = now.AddDate(year-now.Year(), 0, 0).Format(time.RFC3339) })
	}
	return []spoilt{
		{"feedback", "bad_json", message{userID(0), `{"event_id":"spoilt","user_id":`}},
		{"feedback", "bad_type", event(func(f map[string]any) { f["user_id"] = 7 })},
		{"feedback", "missing_field", event(func(f map[string]any) { delete(f, "item_id") })},
		{"feedback", "unknown_kind", event(func(f map[string]any) { f["kind"] = "adore" })},
		{"feedback", "bad_value", event(func(f map[string]any) { f["kind"], f["value"] = "rating", 9 })},
		{"feedback", "bad_time", at(1970)},
		{"feedback", "bad_time", at(2100)},
		{"feedback", "key_mismatch", event(func(f map[string]any) { f["user_id"] = "someone-else" })},
		{"feedback", "empty_key", message{"", event(func(map[string]any) {}).value}},
		{"items", "bad_embedding", message{"short", `{"item_id":"short","embedding":[1,2,3]}`}},
		{"items", "bad_json", message{"nan", `{"item_id":"nan","embedding":[NaN]}`}},
		{"requests", "bad_count", message{userID(1), marshal(map[string]any{"request_id": "none", "user_id": userID(1), "count": 0})}},
		{"requests", "no_decoder", message{userID(1), marshal(map[string]any{"request_id": "picture", "user_id": userID(1), "count": 1, "images": true})}},
	}
}

func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("kafka: " + err.Error())
	}
	return string(b)
}

// counts is what the fold must hold of one user.
type counts struct {
	events, positives, negatives int
	window                       []entry // newest last
}

type entry struct {
	ItemID string `json:"item_id"`
	Class  string `json:"class"`
	Offset int64  `json:"offset"`
}

const (
	newest = 28 // the default window
	resend = 64 // the default ring of event ids
)

// foldLog is the fold written once more, straight from its description: distinct events are counted, those of a class enter the
// window, an undo takes its item out of it. Records are those of feedback in the order of their partitions.
func foldLog(t *testing.T, log []record) map[string]*counts {
	t.Helper()
	rows, rings := map[string]*counts{}, map[string][]string{}
	for _, r := range log {
		var e happened
		if json.Unmarshal([]byte(r.Payload), &e) != nil || e.EventID == "spoilt" {
			continue
		}
		ring := rings[e.UserID]
		if contains(ring, e.EventID) {
			continue
		}
		ring = append(ring, e.EventID)
		rings[e.UserID] = ring[max(0, len(ring)-resend):]
		row := rows[e.UserID]
		if row == nil {
			row = &counts{}
			rows[e.UserID] = row
		}
		row.add(e, r.Offset)
	}
	return rows
}

func (c *counts) add(e happened, offset int64) {
	c.events++
	class := classOf(e)
	switch class {
	case "strong_positive", "weak_positive":
		c.positives++
	case "strong_negative", "weak_negative":
		c.negatives++
	}
	if e.Kind == "undo" {
		var kept []entry
		for _, w := range c.window {
			if w.ItemID != e.ItemID {
				kept = append(kept, w)
			}
		}
		c.window = kept
	}
	if class != "" {
		c.window = append(c.window, entry{e.ItemID, class, offset})
		c.window = c.window[max(0, len(c.window)-newest):]
	}
}

func classOf(e happened) string {
	switch e.Kind {
	case "like", "share", "save":
		return "strong_positive"
	case "click":
		return "weak_positive"
	case "dislike", "hide":
		return "strong_negative"
	case "skip":
		return "weak_negative"
	case "view":
		if *e.Value >= 10 {
			return "weak_positive"
		}
	case "rating":
		switch {
		case *e.Value >= 4:
			return "strong_positive"
		case *e.Value <= 2:
			return "strong_negative"
		}
		return "weak_negative"
	}
	return ""
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}
