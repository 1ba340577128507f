package table

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rebeca/schemas"
)

// rotten are dead letters of the items topic with offsets from first on.
func rotten(first, n int64) (out []Listed) {
	for o := first; o < first+n; o++ {
		out = append(out, Listed{
			Offset: o, Time: timeAt(o), Key: []byte("i"), Value: fmt.Append(nil, "rotten ", o), Dead: &schemas.Rejection{Reason: schemas.ReasonBadJSON, Message: "m"},
		})
	}
	return out
}

func claimed(t testing.TB) *Table {
	t.Helper()
	table := open(t, options(t.TempDir()))
	if err := table.Claim(0, Claim{Epoch: 1}, "items"); err != nil {
		t.Fatal(err)
	}
	return table
}

// The catalogue is read on by whoever has no duty to send its dead letters, and goes ahead of them: what the topic of dead letters holds of
// them is waited for by their own position, whether it is found before they are buried, after it, or between two restarts.
func TestDeadLettersOfItemsFoundBehindTheCatalogue(t *testing.T) {
	bury := func(table *Table, dead []Listed, next int64) {
		t.Helper()
		if _, err := table.Bury("items", 0, dead, next); err != nil {
			t.Fatal(err)
		}
	}
	old := claimed(t)
	bury(old, rotten(0, 3), 3)
	there := messages(outbox(t, old)[1:]...) // the first was not sent
	if len(there) != 2 {
		t.Fatalf("%d dead letters", len(there))
	}
	for _, order := range []string{"listed, found, restarted, buried", "found, listed, buried", "listed, buried, found", "listed, found, buried, found, restarted, found"} {
		table := claimed(t)
		for _, step := range strings.Split(order, ", ") {
			switch step {
			case "listed":
				if err := table.List("items", 0, nil, 3); err != nil {
					t.Fatal(err)
				}
			case "found":
				sent(t, table, "deadletter", 5, there...)
			case "buried":
				bury(table, rotten(0, 3), 3)
			case "restarted":
				table = reopen(t, table)
			}
		}
		bury(table, rotten(3, 1), 4)
		var left []string
		for _, o := range outbox(t, table) {
			left = append(left, string(o.Value))
		}
		if want := []string{"rotten 0", "rotten 3"}; !slices.Equal(left, want) {
			t.Errorf("%s: %q are to be sent, want %q", order, left, want)
		}
		marks := 0
		if err := table.Export(func(c Cut) error { return c.Each(prefixBuried, func(_, _ []byte) error { marks++; return nil }) }); err != nil {
			t.Fatal(err)
		}
		if marks != 0 {
			t.Errorf("%s: %d marks are left", order, marks)
		}
	}
}

// An image that was too large for its topic lies among the dead letters: a state that has still to make it sends it nowhere again.
func TestTooLargeImagesFoundBeforeTheyAreMade(t *testing.T) {
	old, table := open(t, options(t.TempDir())), open(t, options(t.TempDir()))
	var intents []Intent
	for _, table := range []*Table{old, table} {
		intents = accept(t, table, 0, ask(0, "a", "r", 2))
	}
	complete(t, old, finished(t, intents[0], timeAt(1), "1-a"))
	buried := outbox(t, old)[0].Message
	buried.Role = RoleDeadletter
	buried.Headers = append(slices.Clone(buried.Headers), schemas.Header{Key: HeaderReason, Value: []byte(schemas.ReasonTooLarge)}, schemas.Header{Key: HeaderTopic, Value: []byte("generated")})
	sent(t, table, "deadletter", 1, buried)
	table = reopen(t, table)
	complete(t, table, finished(t, intents[0], timeAt(9), "2-b"))
	var left []string
	for _, o := range outbox(t, table) {
		left = append(left, fmt.Sprintf("%s/%d", o.Role, o.Index))
	}
	if want := []string{"generated/1", "vectors/2"}; !slices.Equal(left, want) {
		t.Errorf("%q are to be sent, want %q", left, want)
	}
}
