package table

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rebeca/schemas"
)

func optional[V any](g *rapid.Generator[V]) *rapid.Generator[*V] { return rapid.Ptr(g, true) }

func TestValuesRoundTrip(t *testing.T) {
	text := rapid.String()
	raw := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOf(rapid.Byte()))
	floats := rapid.Map(rapid.SliceOf(rapid.Float32()), func(f []float32) []float32 { return append([]float32{}, f...) })
	source := rapid.Custom(func(t *rapid.T) schemas.Source {
		return schemas.Source{Topic: text.Draw(t, "topic"), Partition: rapid.Int32().Draw(t, "p"), Offset: rapid.Int64().Draw(t, "o")}
	})
	rapid.Check(t, func(t *rapid.T) {
		in := Intent{
			ID: text.Draw(t, "id"), UserID: text.Draw(t, "user"), Trigger: text.Draw(t, "trigger"), RequestID: text.Draw(t, "request"),
			Count: rapid.IntRange(0, 1000).Draw(t, "count"), Rating: text.Draw(t, "rating"),
			Seed: optional(rapid.Uint64()).Draw(t, "seed"), Guidance: optional(rapid.Float64()).Draw(t, "guidance"),
			Images: optional(rapid.Bool()).Draw(t, "images"), Candidates: optional(rapid.IntRange(1, 1000)).Draw(t, "candidates"),
			Explain: optional(rapid.Bool()).Draw(t, "explain"), Source: source.Draw(t, "source"),
			At: time.UnixMilli(rapid.Int64Range(0, 1<<40).Draw(t, "at")).UTC(),
		}
		if rapid.Bool().Draw(t, "after") {
			in.After = &schemas.Position{Partition: rapid.Int32().Draw(t, "p"), Offset: rapid.Int64().Draw(t, "o")}
		}
		done := rapid.IntRange(0, 1000).Draw(t, "done")
		if got, n, err := decodeIntent(encodeIntent(&in, done)); err != nil || n != done || !reflect.DeepEqual(got, in) {
			t.Fatalf("intent %+v, %d, %v", got, n, err)
		}
		m := Message{Role: text.Draw(t, "role"), Key: raw.Draw(t, "key"), Value: raw.Draw(t, "value")}
		for range rapid.IntRange(0, 3).Draw(t, "headers") {
			m.Headers = append(m.Headers, schemas.Header{Key: text.Draw(t, "header"), Value: raw.Draw(t, "value")})
		}
		cause := rapid.SampledFrom([][]byte{nil, {}, []byte("intent")}).Draw(t, "cause")
		if got, why, err := decodeCaused(encodeMessage(&m, cause)); err != nil || !reflect.DeepEqual(got, m) || !bytes.Equal(why, cause) || (why == nil) != (cause == nil) {
			t.Fatalf("message %+v, %v", got, err)
		}
		if role, key, null, err := messageOwner(encodeMessage(&m, cause)); err != nil || role != m.Role || !bytes.Equal(key, m.Key) || null != (m.Value == nil) {
			t.Fatalf("owner %s %q, %v", role, key, err)
		}
		v := Vector{Values: floats.Draw(t, "vector"), PriorVersion: text.Draw(t, "version"), Events: rapid.Uint64().Draw(t, "events"), AsOf: rapid.Int64().Draw(t, "as of")}
		if got, err := decodeVector(encodeVector(&v)); err != nil || !bytes.Equal(encodeVector(&got), encodeVector(&v)) {
			t.Fatalf("vector %+v, %v", got, err)
		}
		if n, err := vectorEvents(encodeVector(&v)); err != nil || n != v.Events {
			t.Fatalf("events of a vector: %d, %v", n, err)
		}
		mem := Memory{ID: text.Draw(t, "memory"), Record: raw.Draw(t, "record"), Source: source.Draw(t, "source")}
		if rapid.Bool().Draw(t, "caused") {
			mem.CausedAt = time.UnixMilli(rapid.Int64Range(0, 1<<40).Draw(t, "caused at")).UTC()
		}
		if got, err := decodeMemory(encodeMemory(&mem)); err != nil || !reflect.DeepEqual(got, mem) {
			t.Fatalf("memory %+v, %v", got, err)
		}
		hashes := rapid.SliceOfN(rapid.Uint64(), 1, 200).Draw(t, "hashes")
		if got, err := decodeHashes(encodeHashes(hashes)); err != nil || !reflect.DeepEqual(got, hashes) {
			t.Fatalf("hashes %v, %v", got, err)
		}
	})
}

// FuzzDecodeValues: no bytes make a decoder of a value panic, allocate without bound, or accept what it would not write.
func FuzzDecodeValues(f *testing.F) {
	yes, seed, guidance := true, uint64(3), 4.
	f.Add(encodeIntent(&Intent{ID: "i", UserID: "u", Images: &yes, Seed: &seed, Guidance: &guidance, After: &schemas.Position{Offset: 4}}, 3))
	f.Add(encodeIntent(&Intent{ID: "i", Candidates: new(4), Explain: &yes}, 0))
	f.Add(encodeMessage(&Message{Role: RoleVectors, Key: []byte("k"), Headers: []schemas.Header{{Key: "a"}}}, nil))
	f.Add(encodeMessage(&Message{Role: RoleGenerated, Key: []byte("k"), Value: []byte("v")}, []byte("intent")))
	f.Add(encodeVector(&Vector{Values: []float32{1}, PriorVersion: "v"}))
	f.Add(encodeMemory(&Memory{ID: "m", Record: []byte("{}")}))
	f.Add(encodeMemory(&Memory{ID: "m", CausedAt: time.UnixMilli(7)}))
	f.Add(encodeMemoryID(7, []float32{1, 2}))
	f.Add(encodeItem("uri", []float32{1, 2}))
	f.Add(encodeHashes([]uint64{1, 2}))
	f.Add(reached{1, 2, 0}.encode())
	f.Add(gaps{total: 3, newest: []Gap{{Kind: "gap", From: 1, To: 5, At: time.UnixMilli(9)}}}.encode())
	f.Add(mark{1, 2}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if in, done, err := decodeIntent(b); err == nil {
			if again, n, err := decodeIntent(encodeIntent(&in, done)); err != nil || n != done || again.UserID != in.UserID {
				t.Error("an intent does not survive encoding")
			}
		}
		if m, cause, err := decodeCaused(b); err == nil && !bytes.Equal(encodeMessage(&m, cause), b) {
			t.Error("a message is read as another")
		}
		if v, err := decodeVector(b); err == nil && len(encodeVector(&v)) != len(b) {
			t.Error("a vector is read as another")
		}
		v, whole := decodeVector(b)
		if n, err := vectorEvents(b); (err == nil) != (whole == nil) || err == nil && n != v.Events {
			t.Errorf("a vector of %d events (%v) is said to know %d (%v)", v.Events, whole, n, err)
		}
		if m, err := decodeMemory(b); err == nil && !bytes.Equal(encodeMemory(&m), b) {
			t.Error("a memory is read as another")
		}
		if uri, e, err := decodeItem(b); err == nil && len(encodeItem(uri, e)) != len(b) {
			t.Error("an item is read as another")
		}
		if h, err := decodeHashes(b); err == nil && !bytes.Equal(encodeHashes(h), b) {
			t.Error("hashes are read as others")
		}
		decodeMemoryID(b)
		if r, err := decodeOffset(b); err == nil && b[0] == reachedVersion && !bytes.Equal(r.encode(), b) {
			t.Error("an offset is read as another")
		}
		if g, err := decodeGaps(b); err == nil && !bytes.Equal(g.encode(), b) {
			t.Error("gaps are read as others")
		}
		decodeMark(b)
		messageOwner(b)
	})
}
