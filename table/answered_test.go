package table

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"rebeca/schemas"
)

// What another state has answered is read for its request ids alone: it makes no intent and no dead letter, and is not answered under
// another offset later, over restarts in the middle too.
func TestRequestsThatAnotherStateHasAnswered(t *testing.T) {
	const answered = 4
	for cut := range int64(answered + 1) {
		table := open(t, options(t.TempDir()))
		if err := table.BeginRequests("requests", 0, 0, answered); err != nil {
			t.Fatal(err)
		}
		var log []Asked
		for o := range int64(6) {
			a := ask(o, "a", fmt.Sprint("r", o), 1)
			a.Offset = o
			log = append(log, a)
		}
		log[2] = Asked{Offset: 2, Time: timeAt(2), Key: []byte("a"), Value: []byte("?"), Dead: &schemas.Rejection{Reason: schemas.ReasonBadCount, Message: "m"}}
		log[5].Request.RequestID = "r1" // again, and answered before
		var intents []Intent
		for _, part := range [][]Asked{log[:cut], log[cut:]} {
			if len(part) == 0 {
				continue
			}
			if next, ok, err := table.Answered("requests", 0); next != answered || !ok || err != nil {
				t.Errorf("cut at %d: answered below %d, %v, %v before the log is read, want %d", cut, next, ok, err, answered)
			}
			in, err := table.Accept("requests", 0, part, part[len(part)-1].Offset+1)
			if err != nil {
				t.Fatal(err)
			}
			intents = append(intents, in...)
			if part[len(part)-1].Offset+1 < answered {
				table = reopen(t, table)
			}
		}
		if len(intents) != 1 || intents[0].RequestID != "r4" {
			t.Errorf("cut at %d: intents %+v, want that of r4", cut, intents)
		}
		if out := outbox(t, table); len(out) != 0 {
			t.Errorf("cut at %d: %d dead letters that were sent before", cut, len(out))
		}
		if next, ok, err := table.Answered("requests", 0); next != 4 || !ok || err != nil {
			t.Errorf("cut at %d: answered below %d, %v, %v, want the waiting request's 4", cut, next, ok, err)
		}
		if err := table.BeginRequests("requests", 0, 0, 2); !errors.Is(err, ErrStale) {
			t.Errorf("a second beginning: %v", err)
		}
		if err := table.Export(func(c Cut) error {
			at, err := c.Positions()
			if len(at) != 1 || at[0].Next != 6 {
				t.Errorf("positions %+v", at)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// The ids of a user's requests from before a forget stay forgotten in a state that reads them after it.
func TestForgottenRequestsOfAnotherOwnerStayForgotten(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, event(0, "a", "x", schemas.KindSkip), forget(3, "a"))
	if err := table.BeginRequests("requests", 0, 0, 10); err != nil {
		t.Fatal(err)
	}
	accept(t, table, 4, ask(1, "a", "before", 1), ask(2, "b", "another", 1), ask(5, "a", "after", 1))
	held := func(user, id string) bool {
		hashes, err := decodeHashes([]byte(dump(t, table)[string(memoryKey(0, user, memoryRequests))]))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(hashes, schemas.EventHash(id))
	}
	if held("a", "before") {
		t.Error("a request from before the forget is remembered")
	}
	if !held("a", "after") || !held("b", "another") {
		t.Error("a request of nobody who was forgotten is not remembered")
	}
}
