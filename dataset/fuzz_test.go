package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"rebeca/schemas"
)

// drain reads all rows, and fails where rows cannot end or their numbers do not rise.
func drain(t *testing.T, rows rows) {
	defer rows.close()
	for last := 0; ; {
		value, n, err := rows.next()
		var dead errUnreadable
		if errors.Is(err, io.EOF) || errors.As(err, &dead) {
			return
		}
		if n <= last {
			t.Fatalf("row %d follows row %d", n, last)
		}
		last = n
		if err == nil {
			// Judging must not panic, whatever the row.
			_, _ = schemas.ParseFeedback(value, time.Time{})
			_, _ = schemas.ParseItem(value, 0)
		}
	}
}

func FuzzJSONLines(f *testing.F) {
	f.Add([]byte("{\"item_id\":\"a\",\"embedding\":[1]}\n\r\n\xef\xbb\xbf{}\nx"))
	f.Fuzz(func(t *testing.T, data []byte) { drain(t, newJSONLines(bytes.NewReader(data))) })
}

func FuzzCSVLines(f *testing.F) {
	f.Add([]byte("item_id,embedding,uri\na,\"[1,2]\",\"x\"\"y\"\n"))
	f.Add([]byte("event_id,user_id,item_id,kind,value,occurred_at\ne,u,i,rating,4,2024-01-02T03:04:05Z\n"))
	f.Add([]byte("embedding_1,item_id,embedding_0\n1,a,\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, fields := range [][]field{eventFields(), itemFields()} {
			if c, err := newCSVLines(bytes.NewReader(data), fields); err == nil {
				drain(t, c)
			}
		}
	})
}

func FuzzParquet(f *testing.F) {
	var some []schemas.Feedback
	for i := range 5 {
		some = append(some, schemas.Feedback{EventID: fmt.Sprint("e", i), UserID: "u", ItemID: "i", Kind: "like", OccurredAt: time.Unix(1e9, 0)})
	}
	f.Add(eventsParquet(f, some, 3))
	f.Add([]byte("PAR1PAR1"))
	for _, file := range itemFiles(f) {
		f.Add(file)
		f.Add(file[:len(file)-1])
		damaged := bytes.Clone(file)
		damaged[len(damaged)/3] ^= 0x41
		f.Add(damaged)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, fields := range [][]field{eventFields(), itemFields()} {
			if p, err := newParquetRows(bytes.NewReader(data), fields); err == nil {
				drain(t, p)
			}
		}
	})
}

// itemFiles are small Parquet files with embeddings in each form, with empty and missing ones, in one and in several row groups.
func itemFiles(t testing.TB) (files [][]byte) {
	numbers := func(b array.Builder, row int) {
		for k := range 3 {
			switch b := b.(type) {
			case *array.Float32Builder:
				b.Append(float32(row) + .5*float32(k))
			case *array.Float64Builder:
				b.Append(float64(row) + .25*float64(k))
			case *array.Int64Builder:
				b.Append(int64(row * k))
			}
		}
	}
	list := func(b array.Builder, row int) {
		if _, fixed := b.(*array.FixedSizeListBuilder); row%4 == 3 && !fixed { // the writer knows no missing ones of those
			b.AppendNull()
			return
		}
		switch b := b.(type) {
		case *array.ListBuilder:
			if b.Append(true); row%4 != 2 { // else an empty one
				numbers(b.ValueBuilder(), row)
			}
		case *array.FixedSizeListBuilder:
			b.Append(true)
			numbers(b.ValueBuilder(), row)
		case *array.BinaryBuilder:
			b.Append([]byte{0, 0, 128, 63, 0, 0, 0, byte(row)})
		case *array.StringBuilder:
			b.Append("AACAPwAAAEA=")
		}
	}
	for _, e := range []arrow.Field{
		{Name: "embedding", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "embedding", Type: arrow.ListOf(arrow.PrimitiveTypes.Float64), Nullable: true},
		{Name: "embedding", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true},
		{Name: "embedding", Type: arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "embedding_f32", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "embedding_f32", Type: arrow.BinaryTypes.String, Nullable: true},
	} {
		for _, group := range []int64{2, 100} {
			files = append(files, table(t, []arrow.Field{{Name: "item_id", Type: arrow.BinaryTypes.String}, e}, 7, group, func(b *array.RecordBuilder, i int) {
				b.Field(0).(*array.StringBuilder).Append(fmt.Sprint("item", i))
				list(b.Field(1), i)
			}))
		}
	}
	return files
}

// Seeds that no reader opens would have nothing fuzzed.
func TestSeedsOfParquetAreRead(t *testing.T) {
	read := 0
	for i, file := range itemFiles(t) {
		p, err := newParquetRows(bytes.NewReader(file), itemFields())
		if err != nil {
			t.Logf("file %d: %v", i, err)
			continue
		}
		for {
			if _, _, err := p.next(); errors.Is(err, io.EOF) {
				break
			}
			read++
		}
		p.close()
	}
	if read < 5*2*7 {
		t.Errorf("%d rows of %d files are read", read, len(itemFiles(t)))
	}
}

func FuzzNPY(f *testing.F) {
	for _, name := range []string{"f2", "f8", "fortran"} {
		data, err := os.ReadFile("testdata/matrix_" + name + ".npy")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := newNPY(bytes.NewReader(data))
		if err != nil {
			return
		}
		for range n.rows {
			row, err := n.row()
			if err != nil {
				return
			}
			if len(row) != n.cols {
				t.Fatalf("a row of %d numbers, not %d", len(row), n.cols)
			}
		}
	})
}
