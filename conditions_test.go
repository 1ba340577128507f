package rebeca

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rebeca/prior"
)

// countingEncoder gives a condition for each window and counts them.
type countingEncoder struct {
	windows int
	err     error
}

func (e *countingEncoder) Encode(ctxs []prior.Context) ([]*prior.Condition, error) {
	e.windows += len(ctxs)
	out := make([]*prior.Condition, len(ctxs))
	for i, c := range ctxs {
		sum := float32(len(c))
		for _, entry := range c {
			sum += 10*entry.Item[0] + 100*float32(entry.Class)
			if entry.Older {
				sum += 1000
			}
		}
		out[i] = &prior.Condition{Vector: []float32{sum}}
	}
	return out, e.err
}

func like(x float32) prior.Context {
	return prior.Context{{Item: []float32{x}, Class: prior.StrongPositive}}
}

// TestWindowsAreEncodedOnce counts what reaches the prior.
func TestWindowsAreEncodedOnce(t *testing.T) {
	older, disliked := like(1), like(1)
	older[0].Older, disliked[0].Class = true, prior.StrongNegative
	m, c := &countingEncoder{}, newConditions(conditionBytes)
	for _, step := range []struct {
		name    string
		users   []string
		windows []prior.Context
		fresh   int
	}{
		{"nobody is known", []string{"a", "b"}, []prior.Context{like(1), nil}, 2},
		{"both are", []string{"b", "a"}, []prior.Context{nil, slices.Clone(like(1))}, 0},
		{"a has another item", []string{"a", "b"}, []prior.Context{like(2), nil}, 1},
		{"what a had is gone", []string{"a"}, []prior.Context{like(1)}, 1},
		{"an older like", []string{"a"}, []prior.Context{older}, 1},
		{"a dislike", []string{"a"}, []prior.Context{disliked}, 1},
		{"a has c's window", []string{"c"}, []prior.Context{disliked}, 1},
	} {
		before := m.windows
		conds, encoded, err := c.encode(m, step.users, step.windows)
		if err != nil || encoded != step.fresh || m.windows-before != step.fresh {
			t.Errorf("%s: %d encoded, said %d, want %d; error %v", step.name, m.windows-before, encoded, step.fresh, err)
		}
		want, _ := new(countingEncoder).Encode(step.windows)
		for i := range want {
			if conds[i].Vector[0] != want[i].Vector[0] {
				t.Errorf("%s: condition %d is %v, want %v", step.name, i, conds[i].Vector, want[i].Vector)
			}
		}
	}
	if _, encoded, _ := c.encode(&countingEncoder{}, []string{"b"}, []prior.Context{nil}); encoded != 1 {
		t.Error("a condition outlived its version")
	}
	broken := &countingEncoder{err: errors.New("device lost")}
	if _, _, err := c.encode(broken, []string{"a"}, []prior.Context{nil}); !errors.Is(err, broken.err) {
		t.Errorf("error %v", err)
	}
}

// TestConditionsAreBounded plays random requests against a cache of a few windows.
func TestConditionsAreBounded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		one := (&encodedWindow{user: "u0", context: like(1), cond: &prior.Condition{Vector: []float32{1}}}).bytes()
		limit := rapid.IntRange(0, 4).Draw(rt, "windows") * one
		c, m := newConditions(limit), &countingEncoder{}
		for range 30 {
			user, window := fmt.Sprint("u", rapid.IntRange(0, 6).Draw(rt, "user")), like(float32(rapid.IntRange(0, 2).Draw(rt, "item")))
			conds, _, err := c.encode(m, []string{user}, []prior.Context{window})
			if err != nil || conds[0].Vector[0] != 1+10*window[0].Item[0]+100*float32(prior.StrongPositive) {
				rt.Fatalf("%s with %v gives %v, %v", user, window, conds, err)
			}
			used := 0
			for e := c.recent.Front(); e != nil; e = e.Next() {
				used += e.Value.(*encodedWindow).bytes()
			}
			if used != c.used || used > limit || c.recent.Len() != len(c.byUser) {
				rt.Fatalf("holds %d bytes, counts %d, limit %d; %d windows, %d users", used, c.used, limit, c.recent.Len(), len(c.byUser))
			}
			if limit >= one {
				if _, again, _ := c.encode(m, []string{user}, []prior.Context{window}); again != 0 {
					rt.Fatal("what was just used is not kept")
				}
			}
		}
	})
}

func TestBatchSize(t *testing.T) {
	var b batchSize
	took := func(images int, d time.Duration, want int) {
		t.Helper()
		if b.took(images, d); b.images() != want {
			t.Errorf("after %d images in %s the bound is %d, want %d", images, d, b.images(), want)
		}
	}
	took(batchImages, batchTime/2, batchImages)        // neither
	took(batchImages-1, time.Millisecond, batchImages) // not full: says nothing of more
	took(batchImages, time.Millisecond, 2*batchImages)
	took(2*batchImages, 2*batchTime, batchImages)
	took(1, time.Minute, leastBatch)
	took(1, time.Minute, leastBatch)
	for range 9 {
		b.took(mostBatch, 0)
	}
	took(mostBatch, 0, mostBatch)
}
