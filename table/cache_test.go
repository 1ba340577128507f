package table

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The cache holds what a list with the newest in front would.
func TestRowCacheIsLRU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(t, "limit") // rows: all cost the same here
		c := newRowCache(limit * (&cached{user: "u0", value: make([]byte, 8)}).cost())
		var order []string
		values := map[string]string{}
		for i := range rapid.IntRange(0, 100).Draw(t, "steps") {
			user := fmt.Sprint("u", rapid.IntRange(0, 7).Draw(t, "user"))
			at := slices.Index(order, user)
			without := func() []string {
				return slices.DeleteFunc(slices.Clone(order), func(u string) bool { return u == user })
			}
			switch rapid.SampledFrom([]string{"get", "peek", "put", "remove"}).Draw(t, "do") {
			case "get":
				got := c.get(user)
				if (got != nil) != (at >= 0) || at >= 0 && string(got) != values[user] {
					t.Fatalf("get %s: %q of %v", user, got, order)
				}
				if at >= 0 {
					order = append([]string{user}, without()...)
				}
			case "peek":
				if got := c.peek(user); (got != nil) != (at >= 0) {
					t.Fatalf("peek %s: %q of %v", user, got, order)
				}
			case "put":
				values[user] = fmt.Sprintf("%08d", i)
				c.put(user, append(make([]byte, 0, 8), values[user]...))
				order = append([]string{user}, without()...)
				order = order[:min(len(order), limit)]
			case "remove":
				c.remove(user)
				order = without()
			}
			if len(c.at) != len(order) || len(c.nodes) > limit+2 {
				t.Fatalf("%d cached in %d nodes, want %v", len(c.at), len(c.nodes), order)
			}
			if c.bytes != len(order)*(cachedOverhead+2+8) {
				t.Fatalf("%d bytes counted for %d rows", c.bytes, len(order))
			}
		}
	})
}

// Rows of any sizes together keep to the limit, and a single one larger than it is kept.
func TestRowCacheIsBoundedInBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 2000
		c := newRowCache(limit)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			user, size := fmt.Sprint("u", rapid.IntRange(0, 30).Draw(t, "user")), rapid.IntRange(1, 2*limit).Draw(t, "size")
			c.put(user, make([]byte, size))
			if c.peek(user) == nil {
				t.Fatal("the newest is not there")
			}
			sum := 0
			for u, i := range c.at {
				sum += cachedOverhead + len(u) + cap(c.nodes[i].value)
			}
			if sum != c.bytes || sum > limit && len(c.at) > 1 {
				t.Fatalf("%d rows of %d bytes, %d counted", len(c.at), sum, c.bytes)
			}
		}
	})
}

// The rows of the partitions that are written have the whole budget: most of a state's may be another process's.
func TestCacheIsOfAllPartitions(t *testing.T) {
	o := options(t.TempDir())
	o.Partitions, o.CacheBytes = 16, 60_000
	table := open(t, o)
	for i, offset := 0, int64(0); offset < 400; i++ {
		user := fmt.Sprint("user-", i)
		if table.userPartition(user) == 3 {
			b := batch(event(offset, user, "x", "like"))
			b.Partition = 3
			if _, err := table.Fold(b); err != nil {
				t.Fatal(err)
			}
			offset++
		}
	}
	if rows := table.partitions[3].rows; rows.bytes <= o.CacheBytes/2 || rows.bytes > o.CacheBytes {
		t.Errorf("%d bytes of %d are used", rows.bytes, o.CacheBytes)
	}
}

// Whoever asks how much waits does not wait for a commit.
func TestDepthsWaitForNobody(t *testing.T) {
	table := open(t, options(t.TempDir()))
	fold(t, table, randomLog(3, 200)...)
	sendAll(t, table)
	fold(t, table, dead(1000, "a", "x"), event(1001, "b", "x", "like"), forget(1002, "c"))
	for range 2 {
		p := table.partitions[0]
		p.mu.Lock()
		asked := make(chan [5]int)
		go func() {
			intents, messages := table.Depths()
			waiting, unsent := table.Waiting(0)
			asked <- [5]int{intents, messages, waiting, unsent, table.Unsent(0)}
		}()
		var got [5]int
		select {
		case got = <-asked:
		case <-time.After(20 * time.Second):
			t.Fatal("it waits for a writer")
		}
		i, m := len(p.waiting.intents), p.outbox.len()
		p.mu.Unlock()
		if want := [5]int{i, m, i, m, m}; got != want || i == 0 || m == 0 {
			t.Errorf("depths %v, want %v", got, want)
		}
		table = reopen(t, table)
	}
}
