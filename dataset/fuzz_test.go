package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

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
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, fields := range [][]field{eventFields(), itemFields()} {
			if p, err := newParquetRows(bytes.NewReader(data), fields); err == nil {
				drain(t, p)
			}
		}
	})
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
