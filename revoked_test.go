package rebeca

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"rebeca/schemas"
)

// serves waits until the members serve all partitions, each some, and returns
// whose each is.
func (f *flock) serves(names ...string) map[int32]string {
	f.t.Helper()
	out := map[int32]string{}
	f.until(fmt.Sprintf("all partitions are served by %v", names), func() bool {
		clear(out)
		n := 0
		for _, name := range names {
			some := false
			for _, sh := range f.running[name].current() {
				if state, _ := sh.now(); state == stateServing {
					out[sh.id], some, n = name, true, n+1
				}
			}
			if !some {
				return false
			}
		}
		return n == f.config.Kafka.Partitions && len(out) == n
	})
	return out
}

// TestGroupNamesTheOwner asks a member of a group for a user of another
// member's partition: the answer is where that one is to be asked.
func TestGroupNamesTheOwner(t *testing.T) {
	f := newFlock(t, 2)
	for _, name := range []string{"a", "b"} {
		f.start(name, func(c *Config) { c.Group, c.HTTP.Advertise = "flock", "http://"+name+".example:8080" })
	}
	for p, name := range f.serves("a", "b") {
		other := map[string]string{"a": "b", "b": "a"}[name]
		var answer struct {
			Error struct{ Code, Message string }
			Owner string
		}
		f.until("the owner is known", func() bool {
			resp, err := http.Get(f.running[other].URL() + "/v1/users/" + f.userIn(p))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != http.StatusMisdirectedRequest || answer.Error.Code != "not_owner" {
				t.Fatalf("%s: %s", resp.Status, body)
			}
			return answer.Owner != "" // as of the last renewal
		})
		if want := "http://" + name + ".example:8080"; answer.Owner != want {
			t.Errorf("partition %d is %s's, the answer of %s names %q", p, name, other, answer.Owner)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestRevokedPartitionIsLeftAlone revokes a partition while its intents wait:
// the member that had it makes nothing of them, and nothing of what it is told
// afterwards; the new owner makes all.
func TestRevokedPartitionIsLeftAlone(t *testing.T) {
	f := newFlock(t, 2)
	f.items(300)
	f.trainer()
	member := func(c *Config) {
		c.Group = "flock"
		c.Generate.Debounce, c.Generate.MaxWait = 3*time.Second, 3*time.Second // longer than a rebalance
	}
	a := f.start("a", member)
	f.serves("a")
	f.until("a has a prior", func() bool { return a.follower.version().Version != "" })
	users := map[int32]string{0: f.userIn(0), 1: f.userIn(1)}
	for _, user := range users {
		f.feedback(schemas.Feedback{EventID: user, UserID: user, ItemID: "item-1", Kind: schemas.KindLike})
	}
	f.until("intents wait", func() bool { n, _ := a.table.Depths(); return n == 2 })
	f.start("b", member)
	owners := f.serves("a", "b")
	made := func(p int32) bool { _, ok := f.images()[users[p]]; return ok }
	f.until("both images are made", func() bool { return made(0) && made(1) })
	for p, name := range owners {
		if name != "b" {
			continue
		}
		if intents, messages := a.table.Waiting(p); messages != 0 || intents != 1 {
			t.Errorf("of partition %d, which is b's, a has %d intents and %d messages; it had an intent when it was revoked", p, intents, messages)
		}
		a.generator.mu.Lock()
		for id := range a.generator.byID {
			if id.partition == p {
				t.Errorf("the generator of a still has %+v", id)
			}
		}
		a.generator.mu.Unlock()
	}
	f.check(owners)
}

// images returns an image of each user that has one.
func (f *flock) images() map[string]schemas.Generated {
	out := map[string]schemas.Generated{}
	for _, g := range f.generated() {
		out[g.UserID] = g
	}
	return out
}

// TestItemsDeadLettersAreTheOwners: every worker reads every partition of
// items; what is wrong there is put into the outbox by the partition's owner
// alone.
func TestItemsDeadLettersAreTheOwners(t *testing.T) {
	f := newFlock(t, 2)
	for p := range int32(2) {
		f.produceTo("items", p, []byte("bad"), []byte("no JSON"))
	}
	f.start("a", own(0))
	f.start("b", own(1))
	f.ready("a", "b")
	for p := range int32(2) { // while they run, too
		f.produceTo("items", p, []byte("bad"), []byte("no JSON, again"))
	}
	owners := map[int32]string{0: "a", 1: "b"}
	f.until("all is read and sent", func() bool {
		for p, name := range owners {
			for _, m := range f.running {
				loops := m.items.all()
				if len(loops) != 2 || loops[p].Position() < 2 {
					return false
				}
			}
			if buried, err := f.running[name].table.BuriedOffset("items", p); err != nil || buried < 2 || f.running[name].table.Unsent(p) > 0 {
				return false
			}
		}
		return true
	})
	if got := f.places(); len(got) != 4 {
		t.Errorf("%d dead letters, want 4: %v", len(got), got)
	}
	for name, m := range f.running {
		for p, owner := range owners {
			if owner == name {
				continue
			}
			if buried, err := m.table.BuriedOffset("items", p); err != nil || buried != 0 || m.table.Unsent(p) != 0 {
				t.Errorf("%s, which does not own partition %d, has buried up to %d (%v) and has %d messages", name, p, buried, err, m.table.Unsent(p))
			}
		}
	}
}
