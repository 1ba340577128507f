package table

import (
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"time"

	"rebeca/schemas"
)

func objectNamed(n byte) Object { return Object{n, 7} }

func note(t testing.TB, table *Table, user string, o Object, at time.Time) {
	t.Helper()
	if err := table.NoteObject(0, user, o, at); err != nil {
		t.Fatal(err)
	}
}

func doomed(t testing.TB, table *Table) (out []byte) {
	t.Helper()
	objects, err := table.DoomedObjects(0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		out = append(out, o[0])
	}
	slices.Sort(out)
	return out
}

func giveUp(t testing.TB, table *Table, before time.Time, inHand ...byte) Doomed {
	t.Helper()
	d, err := table.DoomObjects(0, before, func(o Object) bool { return slices.Contains(inHand, o[0]) })
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pictured completes a user's intent with an image in the bucket.
func pictured(t testing.TB, table *Table, in Intent, o Object) {
	t.Helper()
	id := schemas.ID(in.Source, 0)
	m := image(in.UserID, id)
	complete(t, table, Completion{Seq: in.Seq, UserID: in.UserID, Messages: []Message{m}, Memories: []Memory{{
		ID: id, Embedding: make([]float32, dim), Record: m.Value, Source: in.Source, Object: &o,
	}}})
}

// TestObjectsWithoutRecord: an object whose record never comes is deleted, at once after a restart, but not while it is in hand.
func TestObjectsWithoutRecord(t *testing.T) {
	table := open(t, options(t.TempDir()))
	note(t, table, "ada", objectNamed(1), time.Now())
	note(t, table, "ada", objectNamed(2), time.Now())
	if d := giveUp(t, table, time.Time{}, 1, 2); d != (Doomed{}) || len(doomed(t, table)) != 0 {
		t.Fatalf("in hand, and given up: %+v", d)
	}
	table = reopen(t, table)
	if d := giveUp(t, table, time.Time{}, 2); d.Orphans != 1 || !slices.Equal(doomed(t, table), []byte{1}) {
		t.Fatalf("%+v, to be deleted: %v", d, doomed(t, table))
	}
	note(t, table, "ada", objectNamed(1), time.Now()) // it is written again
	if is, err := table.IsDoomed(0, objectNamed(1)); is || err != nil || len(doomed(t, table)) != 0 {
		t.Errorf("to be deleted though it is written: %v, %v", is, err)
	}
	giveUp(t, table, time.Time{})
	for _, n := range []byte{1, 2} {
		if err := table.ObjectDeleted(0, objectNamed(n)); err != nil {
			t.Fatal(err)
		}
	}
	if d := giveUp(t, table, time.Time{}); d != (Doomed{}) || len(doomed(t, table)) != 0 {
		t.Errorf("still there: %+v", d)
	}
}

// TestObjectsAreGivenUpInChunks: all go of more than a transaction takes; one that is written again, or whose look finds it in hand by then, stays;
// and no more are returned than asked for.
func TestObjectsAreGivenUpInChunks(t *testing.T) {
	table := open(t, options(t.TempDir()))
	named := func(n int) Object { return Object{byte(n >> 8), byte(n), 7} }
	if err := table.changeObjects(0, "noting", func(c *change) error {
		for n := range 2*doomChunk + 3 {
			if err := c.set(objectKey(0, forgottenOf([]byte("ada")), named(n)), objectNote{}.encode()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	looks := map[Object]int{}
	d, err := table.DoomObjects(0, time.Time{}, func(o Object) bool { // 5 is taken in hand between the look and the deed, 6 before both
		looks[o]++
		return o == named(5) && looks[o] > 1 || o == named(6)
	})
	if err != nil || d != (Doomed{Orphans: 2*doomChunk + 1}) {
		t.Errorf("%+v, %v", d, err)
	}
	if looks[named(6)] != 1 {
		t.Errorf("one that is needed was looked at %d times", looks[named(6)])
	}
	objects, err := table.DoomedObjects(0, 2*doomChunk+3)
	if err != nil || len(objects) != 2*doomChunk+1 || slices.Contains(objects, named(5)) || slices.Contains(objects, named(6)) {
		t.Errorf("%d are to be deleted, %v", len(objects), err)
	}
	if some, err := table.DoomedObjects(0, 10); err != nil || !slices.Equal(some, objects[:10]) {
		t.Errorf("%d of them, asked for ten, %v", len(some), err)
	}
}

// TestObjectsExpire: an object goes when it is old, never before its record is sent.
func TestObjectsExpire(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := fold(t, table, event(0, "ada", "x", schemas.KindLike)).Intents
	note(t, table, "ada", objectNamed(1), time.Now())
	pictured(t, table, in[0], objectNamed(1))
	later := time.Now().Add(time.Hour)
	if d := giveUp(t, table, time.Time{}); d != (Doomed{}) {
		t.Errorf("kept for ever, and given up: %+v", d)
	}
	if d := giveUp(t, table, later); d != (Doomed{}) {
		t.Errorf("its record is unsent, and it is given up: %+v", d)
	}
	sent := outbox(t, table)
	if err := table.Trim(0, sent, Position{Topic: "generated", Partition: 0, Next: 1}); err != nil {
		t.Fatal(err)
	}
	if d := giveUp(t, table, time.Now().Add(-time.Hour)); d != (Doomed{}) {
		t.Errorf("too young, and given up: %+v", d)
	}
	if d := giveUp(t, table, later); d.Expired != 1 || !slices.Equal(doomed(t, table), []byte{1}) {
		t.Errorf("%+v, to be deleted: %v", d, doomed(t, table))
	}
}

// TestObjectsOfForgotten: all objects of a forgotten user go, whatever became of their records; nobody else's, and none of the next life.
func TestObjectsOfForgotten(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := fold(t, table, event(0, "ada", "x", schemas.KindLike), event(1, "bob", "x", schemas.KindLike)).Intents
	for i, user := range []string{"ada", "bob"} {
		note(t, table, user, objectNamed(byte(1+i)), time.Now())
		pictured(t, table, in[slices.IndexFunc(in, func(in Intent) bool { return in.UserID == user })], objectNamed(byte(1+i)))
	}
	note(t, table, "ada", objectNamed(3), time.Now()) // in the making
	fold(t, table, forget(2, "ada"))
	if got := doomed(t, table); !slices.Equal(got, []byte{1, 3}) {
		t.Fatalf("to be deleted: %v", got)
	}
	note(t, table, "ada", objectNamed(4), time.Now())
	table = reopen(t, table)
	if giveUp(t, table, time.Time{}, 4); !slices.Equal(doomed(t, table), []byte{1, 3}) {
		t.Errorf("to be deleted after a restart: %v", doomed(t, table))
	}
}

// published is a generated record as its topic has it, with a picture in the bucket.
func published(user string, offset, asOf int64, o Object) Message {
	source := schemas.Source{Topic: topic, Offset: offset}
	value := fmt.Appendf(nil, `{"id":%q,"user_id":%q,"trigger":"feedback","embedding_f32":"AACAPwAAAEAAAIA/AAAAQA==","dim":4,"seed":1,"guidance":1,"steps":8,`+
		`"prior_version":"1-a","events_folded":1,"as_of":{"partition":0,"offset":%d},"source":{"topic":%q,"partition":0,"offset":%d},`+
		`"created_at":"2026-03-01T12:00:00Z","caused_at":%q,"image":{"media_type":"image/png","width":8,"height":8,"sha256":%q,"uri":"s3://b/k"}}`,
		schemas.ID(source, 0), user, asOf, topic, offset, timeAt(offset).Format(time.RFC3339Nano), hex.EncodeToString(o[:]))
	return Message{Role: RoleGenerated, Key: []byte(user), Value: value, Headers: []schemas.Header{{Key: "ce_id", Value: []byte(schemas.ID(source, 0))}}}
}

// TestObjectsReadBack: a state that is older than the topic learns of the objects there, of forgotten users' too; one that it made again and does not
// send is deleted.
func TestObjectsReadBack(t *testing.T) {
	table := open(t, options(t.TempDir()))
	in := fold(t, table, event(0, "ada", "x", schemas.KindLike)).Intents
	note(t, table, "ada", objectNamed(1), time.Now())
	o := objectNamed(1)
	made := published("ada", 0, 0, o)
	complete(t, table, Completion{Seq: in[0].Seq, UserID: "ada", Messages: []Message{made}, Memories: []Memory{{
		ID: schemas.ID(in[0].Source, 0), Embedding: make([]float32, dim), Record: made.Value, Source: in[0].Source, Object: &o,
	}}})
	fold(t, table, forget(1, "bob"))
	if _, err := table.Sent(0, []Message{published("ada", 0, 0, objectNamed(2)), published("bob", 5, 0, objectNamed(3))}, Position{Topic: "generated", Partition: 0, Next: 2}); err != nil {
		t.Fatal(err)
	}
	if d := giveUp(t, table, time.Time{}); d.Orphans != 1 {
		t.Errorf("of the one made again: %+v", d)
	}
	if got := doomed(t, table); !slices.Equal(got, []byte{1, 3}) {
		t.Errorf("to be deleted: %v", got)
	}
	// It was given up here; another worker, which made it again, has sent its record.
	if _, err := table.Sent(0, []Message{published("ada", 0, 0, objectNamed(1))}, Position{Topic: "generated", Partition: 0, Next: 3}); err != nil {
		t.Fatal(err)
	}
	giveUp(t, table, time.Time{})
	if got := doomed(t, table); !slices.Equal(got, []byte{2, 3}) {
		t.Errorf("to be deleted when the record points at another again: %v", got)
	}
	fold(t, table, forget(2, "ada"))
	if got := doomed(t, table); !slices.Equal(got, []byte{1, 2, 3}) {
		t.Errorf("to be deleted after the forget: %v", got)
	}
}
