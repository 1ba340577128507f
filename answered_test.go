package rebeca

import (
	"testing"

	"rebeca/schemas"
)

// TestAnotherStateAnswersNoRequestAgain gives a partition to a state that has
// nothing of it: what the last owner had answered is neither answered again
// nor, when the same request id comes once more, under another id; what was
// asked between the two owners is answered. The new owner is killed between its
// claim and its first word on requests in one of two cases, which its own claim
// in the group stands for.
func TestAnotherStateAnswersNoRequestAgain(t *testing.T) {
	for name, claimed := range map[string]bool{"at the first start": false, "after a kill behind the claim": true} {
		t.Run(name, func(t *testing.T) {
			f := newFlock(t, 2)
			f.items(300)
			f.trainer()
			f.start("a", own(0, 1))
			f.ready("a")
			user := f.userIn(1)
			asked := func(id string) {
				t.Helper()
				value, err := schemas.Request{RequestID: id, UserID: user, Count: 2}.Encode()
				if err != nil {
					t.Fatal(err)
				}
				f.produce("requests", []byte(user), value)
			}
			answers := func(id string) (n int) {
				for _, g := range f.generated() {
					if g.RequestID == id {
						n++
					}
				}
				return n
			}
			asked("old")
			f.produce("requests", []byte(user), []byte("no JSON"))
			f.until("the first owner answers", func() bool { return answers("old") == 2 && len(f.places()) == 1 })
			f.rest("a")
			f.stop("a")
			asked("between")
			if claimed {
				f.start("b", own(0))
				f.ready("b")
				// As if it had died there: the claim is its own, and the state follows no requests yet.
				sh := &shard{id: 1}
				if _, err := f.running["b"].claimOnce(t.Context(), sh, new(silence)); err != nil {
					t.Fatal(err)
				}
				f.stop("b")
			}
			f.start("b", own(0, 1))
			f.ready("b")
			asked("old")
			asked("new")
			f.until("the second owner answers", func() bool { return answers("between") == 2 && answers("new") == 2 })
			f.rest("b")
			if n := answers("old"); n != 2 {
				t.Errorf("%d images for a request of 2 that came twice", n)
			}
			if n := len(f.places()); n != 1 {
				t.Errorf("%d dead letters for one bad record", n)
			}
		})
	}
}
