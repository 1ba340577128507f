package dataset

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"pgregory.net/rapid"

	"rebeca/schemas"
)

// write puts a file into a folder of its own.
func write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// all reads a file to its end: the records, and what was said of broken rows without the file's name.
func all[T any](t testing.TB, path string, open func(string) (*Reader, error), next func(*Reader) (T, error)) (records []T, broken []string) {
	t.Helper()
	r, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		record, err := next(r)
		var row *RowError
		switch {
		case errors.Is(err, io.EOF):
			return records, broken
		case errors.As(err, &row):
			broken = append(broken, strings.TrimPrefix(err.Error(), path+": "))
		case err != nil:
			t.Fatal(err)
		default:
			records = append(records, record)
		}
	}
}

func events(t testing.TB, path string) ([]schemas.Feedback, []string) {
	return all(t, path, OpenEvents, (*Reader).Event)
}

func items(t testing.TB, path string) ([]schemas.Item, []string) {
	return all(t, path, OpenItems, func(r *Reader) (schemas.Item, error) { return r.Item(0) })
}

// The same records read the same from every format.
func TestFormatsAgree(t *testing.T) {
	name := rapid.StringMatching(`[a-z"',äé ]{1,12}x`)
	rapid.Check(t, func(rt *rapid.T) {
		var want []schemas.Feedback
		for i := range rapid.IntRange(0, 30).Draw(rt, "events") {
			f := schemas.Feedback{
				EventID: fmt.Sprint("e", i), UserID: "u" + name.Draw(rt, "user"), ItemID: "i" + name.Draw(rt, "item"),
				Kind:       rapid.SampledFrom([]schemas.Kind{schemas.KindLike, schemas.KindRating}).Draw(rt, "kind"),
				OccurredAt: time.UnixMicro(rapid.Int64Range(1e15, 1.7e15).Draw(rt, "at")).UTC(),
			}
			if f.Kind == schemas.KindRating {
				v := float64(rapid.IntRange(1, 5).Draw(rt, "stars"))
				f.Value = &v
			}
			want = append(want, f)
		}
		for name, content := range map[string][]byte{
			"e.jsonl": jsonl(t, want), "e.csv": eventsCSV(t, want), "e.parquet": eventsParquet(t, want, 7),
		} {
			got, broken := events(t, write(t, name, content))
			if len(broken) > 0 || !reflect.DeepEqual(got, want) {
				rt.Fatalf("%s: got %v, broken %v, want %v", name, got, broken, want)
			}
		}
	})
}

func jsonl[T any](t testing.TB, records []T) []byte {
	var b bytes.Buffer
	for _, r := range records {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.Bytes()
}

// eventsCSV is written by the standard library, with a column that nobody reads.
func eventsCSV(t testing.TB, events []schemas.Feedback) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	_ = w.Write([]string{"kind", "note", "user_id", "item_id", "event_id", "occurred_at", "value"})
	for _, f := range events {
		value := ""
		if f.Value != nil {
			value = fmt.Sprint(*f.Value)
		}
		_ = w.Write([]string{string(f.Kind), "a, \"b\"", f.UserID, f.ItemID, f.EventID, f.OccurredAt.Format(time.RFC3339Nano), value})
	}
	if w.Flush(); w.Error() != nil {
		t.Fatal(w.Error())
	}
	return b.Bytes()
}

// table writes columns as a Parquet file with row groups of a few rows.
func table(t testing.TB, fields []arrow.Field, rows int, group int64, fill func(b *array.RecordBuilder, row int)) []byte {
	t.Helper()
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.NewGoAllocator(), schema)
	defer b.Release()
	for i := range rows {
		fill(b, i)
	}
	rec := b.NewRecord()
	defer rec.Release()
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &out, parquet.NewWriterProperties(parquet.WithMaxRowGroupLength(group)),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteBuffered(rec), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func eventColumns() []arrow.Field {
	return []arrow.Field{
		{Name: "occurred_at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
		{Name: "event_id", Type: arrow.BinaryTypes.String}, {Name: "note", Type: arrow.PrimitiveTypes.Int32},
		{Name: "user_id", Type: arrow.BinaryTypes.Binary}, {Name: "item_id", Type: arrow.BinaryTypes.LargeString},
		{Name: "kind", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}},
		{Name: "value", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
	}
}

func eventsParquet(t testing.TB, events []schemas.Feedback, group int64) []byte {
	return table(t, eventColumns(), len(events), group, func(b *array.RecordBuilder, i int) {
		f := events[i]
		b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(f.OccurredAt.UnixMicro()))
		b.Field(1).(*array.StringBuilder).Append(f.EventID)
		b.Field(2).(*array.Int32Builder).Append(7)
		b.Field(3).(*array.BinaryBuilder).Append([]byte(f.UserID))
		b.Field(4).(*array.LargeStringBuilder).Append(f.ItemID)
		if err := b.Field(5).(*array.BinaryDictionaryBuilder).AppendString(string(f.Kind)); err != nil {
			t.Fatal(err)
		}
		if f.Value == nil {
			b.Field(6).AppendNull()
		} else {
			b.Field(6).(*array.Float32Builder).Append(float32(*f.Value))
		}
	})
}

func TestItemsOfEveryForm(t *testing.T) {
	want := []schemas.Item{
		{ItemID: "a", Embedding: []float32{.5, -1e-7}, URI: "http://x/a.png", Attributes: json.RawMessage(`{"k":"v"}`)},
		{ItemID: "b", Embedding: []float32{3, 4}},
	}
	pack := func(e []float32) string {
		value, _ := schemas.Item{ItemID: "x", Embedding: e}.Encode()
		_, rest, _ := strings.Cut(string(value), `"embedding_f32":"`)
		packed, _, _ := strings.Cut(rest, `"`)
		return packed
	}
	lists := func(of arrow.DataType, add func(array.Builder, float32)) []byte {
		return table(t, []arrow.Field{
			{Name: "item_id", Type: arrow.BinaryTypes.String}, {Name: "embedding", Type: of},
			{Name: "uri", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "attributes", Type: arrow.BinaryTypes.String, Nullable: true},
		}, 2, 1, func(b *array.RecordBuilder, i int) {
			b.Field(0).(*array.StringBuilder).Append(want[i].ItemID)
			list := b.Field(1).(array.ListLikeBuilder)
			list.Append(true)
			for _, v := range want[i].Embedding {
				add(list.ValueBuilder(), v)
			}
			if want[i].URI == "" {
				b.Field(2).AppendNull()
				b.Field(3).AppendNull()
				return
			}
			b.Field(2).(*array.StringBuilder).Append(want[i].URI)
			b.Field(3).(*array.StringBuilder).Append(string(want[i].Attributes))
		})
	}
	f32 := func(b array.Builder, v float32) { b.(*array.Float32Builder).Append(v) }
	f64 := func(b array.Builder, v float32) { b.(*array.Float64Builder).Append(float64(v)) }
	for name, content := range map[string][]byte{
		"list.csv": []byte("\ufeffitem_id,embedding,uri,attributes\na,\"[0.5,-1e-7]\",http://x/a.png,\"{\"\"k\"\": \"\"v\"\"}\"\n\nb,\"[3,4]\",,\n"),
		"dims.csv": []byte("embedding_1,item_id,embedding_0,uri,attributes\n-1e-7,a,.5,http://x/a.png,\"{\"\"k\"\":\"\"v\"\"}\"\n4,b,3,,"),
		"b64.csv":  []byte("item_id,embedding_f32,uri,attributes\r\na," + pack(want[0].Embedding) + ",http://x/a.png,\"{\"\"k\"\":\"\"v\"\"}\"\r\nb," + pack(want[1].Embedding) + ",,\r\n"),
		"x.NDJSON": []byte(`{"item_id":"a","embedding":[0.5,-1e-7],"uri":"http://x/a.png","attributes":{"k":"v"}}` + "\n" + `{"item_id":"b","embedding":[3,4]}`),

		"list.parquet": lists(arrow.ListOf(arrow.PrimitiveTypes.Float32), f32),
		"f64.parquet":  lists(arrow.ListOf(arrow.PrimitiveTypes.Float64), f64),
	} {
		got, broken := items(t, write(t, name, content))
		if len(broken) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, broken %v, want %v", name, got, broken, want)
		}
	}
	for _, name := range []string{"items_list", "items_fixed", "items_large"} {
		if got, broken := items(t, "testdata/"+name+".parquet"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, broken %v, want %v", name, got, broken, want)
		}
	}
}

// The files in testdata were written by another implementation: PyArrow 26, with other types, pages and compressions
// than the tests write.
func TestEventsOfAnotherWriter(t *testing.T) {
	got, broken := events(t, "testdata/events.parquet")
	four := 4.
	var want []schemas.Feedback
	for i, kind := range []schemas.Kind{"rating", "like", "skip", "like", "like"} {
		want = append(want, schemas.Feedback{
			EventID: fmt.Sprint("e", i), UserID: []string{"u", "v"}[i%2], ItemID: []string{"a", "b"}[i%2], Kind: kind,
			OccurredAt: time.Date(2024, 1, 2, 3, 4, 5+i, 0, time.UTC),
		})
	}
	want[0].Value = &four
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, broken %v, want %v", got, broken, want)
	}
}

func TestPackedParquet(t *testing.T) {
	raw := []byte{0, 0, 0, 63, 0, 0, 128, 64} // .5, 4
	for name, of := range map[string]arrow.DataType{"bytes": arrow.BinaryTypes.Binary, "base64": arrow.BinaryTypes.String} {
		content := table(t, []arrow.Field{{Name: "item_id", Type: arrow.BinaryTypes.String}, {Name: "embedding_f32", Type: of}}, 1, 1,
			func(b *array.RecordBuilder, _ int) {
				b.Field(0).(*array.StringBuilder).Append("a")
				switch column := b.Field(1).(type) {
				case *array.BinaryBuilder:
					column.Append(raw)
				case *array.StringBuilder:
					column.Append(base64.StdEncoding.EncodeToString(raw))
				}
			})
		got, broken := items(t, write(t, name+".parquet", content))
		if want := []float32{.5, 4}; len(got) != 1 || !reflect.DeepEqual(got[0].Embedding, want) {
			t.Errorf("%s: got %v, broken %v", name, got, broken)
		}
	}
}

// A broken row is named by its place and costs no other.
func TestBrokenRows(t *testing.T) {
	const head = "event_id,user_id,item_id,kind,value,occurred_at\n"
	const good = "e1,u,i,like,,2024-01-02T03:04:05Z\n"
	const goodJSON = `{"event_id":"e1","user_id":"u","item_id":"i","kind":"like","occurred_at":"2024-01-02T03:04:05Z"}` + "\n"
	long := strings.Repeat("x", 5*schemas.MaxValue)
	for _, c := range []struct{ name, content, want string }{
		{"a.csv", head + good + "e2,u,i,like\n" + good, "line 3: has 4 cells where line 1 names 6 columns"},
		{"a.csv", head + "e2,\"u,i,like,,2024-01-02T03:04:05Z\n" + good + good, "line 2: cell 2: a quote is not closed in its line"},
		{"a.csv", head + "e2,u\"v,i,like,,2024-01-02T03:04:05Z\n" + good + good, "line 2: cell 2 has a quote in the middle"},
		{"a.csv", head + "e2,\"u\"v,i,like,,2024-01-02T03:04:05Z\n" + good + good, "line 2: cell 2: something follows the closing quote"},
		{"a.csv", head + "e2,u,i,rating,many,2024-01-02T03:04:05Z\n" + good + good, `line 2: value is not a number: "many"`},
		{"a.csv", head + "e2,u,i,rating,NaN,2024-01-02T03:04:05Z\n" + good + good, `line 2: value is not a number: "NaN"`},
		{"a.csv", head + "e2,u,i,rating,9,2024-01-02T03:04:05Z\n" + good + good, "line 2: bad_value: "},
		{"a.csv", head + good + "e2,u,i,love,,2024-01-02T03:04:05Z\n" + good, "line 3: unknown_kind: "},
		{"a.csv", head + good + "e2,u,i,like,,yesterday\n" + good, "line 3: bad_time: "},
		{"a.csv", head + good + "e2,u\xff,i,like,,2024-01-02T03:04:05Z\n" + good, "line 3: bad_json: "},
		{"a.csv", head + good + long + "\n" + good, "line 3: is longer than 4194304 bytes"},
		{"a.jsonl", goodJSON + "{\"event_id\":\n\n" + goodJSON, "line 2: bad_json: "},
		{"a.jsonl", goodJSON + "\n{}\n" + goodJSON, "line 3: missing_field: "},
		{"a.jsonl", goodJSON + long + "\n" + goodJSON, "line 2: is longer than 4194304 bytes"},
	} {
		got, broken := events(t, write(t, c.name, []byte(c.content)))
		if len(got) != 2 || len(broken) != 1 || !strings.HasPrefix(broken[0], c.want) {
			t.Errorf("%.80q: %d read, broken %q, want %q", c.content, len(got), broken, c.want)
		}
	}
}

func TestBrokenRowOfParquet(t *testing.T) {
	content := table(t, []arrow.Field{{Name: "item_id", Type: arrow.BinaryTypes.String}, {Name: "embedding", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32)}}, 3, 2,
		func(b *array.RecordBuilder, i int) {
			b.Field(0).(*array.StringBuilder).Append(fmt.Sprint("i", i))
			list := b.Field(1).(*array.ListBuilder)
			list.Append(true)
			if values := list.ValueBuilder().(*array.Float32Builder); i == 1 {
				values.AppendNull()
			} else {
				values.Append(1)
			}
		})
	got, broken := items(t, write(t, "a.parquet", content))
	if len(got) != 2 || len(broken) != 1 || broken[0] != "row 2: embedding[0] is null" {
		t.Errorf("read %v, broken %q", got, broken)
	}
}

// What no row can be read of is refused at once, with the column's name.
func TestRefusedFiles(t *testing.T) {
	one := func(fields ...arrow.Field) string {
		return string(table(t, fields, 0, 1, nil))
	}
	text := func(name string) arrow.Field { return arrow.Field{Name: name, Type: arrow.BinaryTypes.String} }
	whole := string(eventsParquet(t, []schemas.Feedback{{EventID: "e", UserID: "u", ItemID: "i", Kind: "like", OccurredAt: time.Unix(1e9, 0)}}, 1))
	for _, c := range []struct {
		name, content, want string
		open                func(string) (*Reader, error)
	}{
		{"a.txt", "", `its name ends in ".txt"; .jsonl, .csv and .parquet are read`, OpenEvents},
		{"a.csv", "", "is empty; the first line names the columns", OpenEvents},
		{"a.csv", "event_id,user_id,item_id,occurred_at\n", "has no column kind", OpenEvents},
		{"a.csv", "event_id,user_id,event_id\n", "line 1: two columns are named event_id", OpenEvents},
		{"a.csv", "item_id,uri\n", "has no column embedding or embedding_f32", OpenItems},
		{"a.csv", "item_id,embedding_0,embedding_2\n", "line 1: 2 columns are named embedding_N, and embedding_1 is not among them", OpenItems},
		{"a.csv", "item_id,embedding_0,embedding\n", "line 1: both embedding and embedding_0 are columns", OpenItems},
		{"a.parquet", "", "is no whole Parquet file: ", OpenEvents},
		{"a.parquet", "item_id,embedding\n", "is no whole Parquet file: ", OpenItems},
		{"a.parquet", whole[:len(whole)-20], "is no whole Parquet file: ", OpenEvents},
		{"a.parquet", one(text("item_id")), "has no column embedding or embedding_f32", OpenItems},
		{"a.parquet", one(text("item_id"), arrow.Field{Name: "embedding", Type: arrow.PrimitiveTypes.Float32}), "column embedding is of type float32, and must be a list of numbers", OpenItems},
		{"a.parquet", one(text("item_id"), arrow.Field{Name: "embedding", Type: arrow.ListOf(arrow.BinaryTypes.String)}), "column embedding is of type list<", OpenItems},
		{"a.parquet", one(text("event_id"), text("user_id"), arrow.Field{Name: "item_id", Type: arrow.PrimitiveTypes.Int64}, text("kind"), text("occurred_at")), "column item_id is of type int64, and must be a string", OpenEvents},
		{"a.parquet", one(text("event_id"), text("user_id"), text("item_id"), text("kind"), arrow.Field{Name: "occurred_at", Type: arrow.PrimitiveTypes.Int64}), "column occurred_at is of type int64, and must be a timestamp or a string", OpenEvents},
		{"a.parquet", one(text("event_id"), text("user_id"), text("item_id"), text("kind"), text("value"), text("occurred_at")), "column value is of type utf8, and must be a number", OpenEvents},
	} {
		path := write(t, c.name, []byte(c.content))
		_, err := c.open(path)
		if err == nil || !strings.HasPrefix(err.Error(), path+": "+c.want) {
			t.Errorf("%s %.60q: error %v, want %q", c.name, c.content, err, c.want)
		}
	}
	if _, err := OpenEvents(filepath.Join(t.TempDir(), "none.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A page that is spoilt ends the reading with an error and not with an early end.
func TestSpoiltPages(t *testing.T) {
	var want []schemas.Feedback
	for i := range 200 {
		want = append(want, schemas.Feedback{EventID: fmt.Sprint("event-", i), UserID: "u", ItemID: fmt.Sprint("item-", i), Kind: "like", OccurredAt: time.Unix(1e9, 0).UTC()})
	}
	whole := eventsParquet(t, want, 1000)
	refused := 0
	for at := 4; at < 2000; at += 37 {
		spoilt := bytes.Clone(whole)
		for k := range 16 {
			spoilt[at+k] ^= 0xff
		}
		r, err := OpenEvents(write(t, "a.parquet", spoilt))
		if err != nil {
			refused++
			continue
		}
		n := 0
		for {
			_, err = r.Event()
			var row *RowError
			if err != nil && !errors.As(err, &row) {
				break
			}
			n++
		}
		r.Close()
		if errors.Is(err, io.EOF) && n != len(want) {
			t.Errorf("spoilt at %d: ended after %d of %d rows without an error", at, n, len(want))
		}
		if !errors.Is(err, io.EOF) {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no spoilt file was refused")
	}
}
