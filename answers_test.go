package rebeca

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"rebeca/table"
)

// image is a published record of a request.
func (d *door) image(user, request string) {
	value := fmt.Sprintf(`{"id":"of %s","request_id":%q}`, request, request)
	d.published([]table.Outgoing{{Message: table.Message{Role: table.RoleGenerated, Key: []byte(user), Value: []byte(value)}}})
}

// An answer goes with the last of those who asked for it, and stays while one of them is still to come.
func TestAnswersGoWithWhoeverAsked(t *testing.T) {
	d := &door{}
	key := requestKey("u", "r")
	d.expect(key)
	d.expect(key) // the same once more, beside the first
	d.image("u", "r")
	for left := 1; left >= 0; left-- {
		if got, err := d.Await(t.Context(), "u", "r", 1); err != nil || len(got) != 1 {
			t.Fatalf("%d records, error %v", len(got), err)
		}
		if len(d.answers.by) != left || (d.answers.bytes == 0) != (left == 0) {
			t.Errorf("%d answers of %d bytes are kept, want %d", len(d.answers.by), d.answers.bytes, left)
		}
	}
	d.image("u", "r") // nobody's any more
	if len(d.answers.by) != 0 {
		t.Error("a record that nobody asked for is kept")
	}
}

// Answers that nobody comes for are bounded in bytes; one that somebody waits for stays.
func TestAnswersAreBounded(t *testing.T) {
	d := &door{}
	const size = 1 << 20
	first := requestKey("u", "waited for")
	d.expect(first)
	waiting := make(chan int)
	go func() {
		got, err := d.Await(t.Context(), "u", "waited for", 2)
		if err != nil {
			t.Error(err)
		}
		waiting <- len(got)
	}()
	for { // until it waits
		d.mu.Lock()
		there := d.answers.by[first].waiters == 1
		d.mu.Unlock()
		if there {
			break
		}
		time.Sleep(time.Millisecond)
	}
	record := make(json.RawMessage, size)
	add := func(key string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.answers.add(key, fmt.Sprint(d.answers.bytes), record)
	}
	add(first)
	for i := range 3 * maxAnswers / size {
		key := requestKey("u", fmt.Sprint("r", i))
		d.expect(key)
		add(key)
		if d.answers.bytes > maxAnswers {
			t.Fatalf("%d bytes are kept", d.answers.bytes)
		}
	}
	add(first)
	if n := <-waiting; n != 2 {
		t.Errorf("%d records", n)
	}
	sum := 0
	for _, a := range d.answers.by {
		sum += a.bytes
	}
	if sum != d.answers.bytes || sum == 0 {
		t.Errorf("%d bytes are counted of %d", d.answers.bytes, sum)
	}
	d.answers.swept = time.Time{}
	d.answers.of("another", time.Now().Add(2*awaitLimit))
	if len(d.answers.by) != 1 || d.answers.bytes != 0 {
		t.Errorf("%d answers are kept for ever", len(d.answers.by))
	}
}
