package dataset

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"rebeca/schemas"
)

// ratingsCSV is of the form of the published file: names with spaces before them, lines in the order of the workers.
const ratingsCSV = "worker, imagePair, score\r\n" +
	"A1Q,farm1_1.jpg,4\r\n" +
	"A1Q,farm1_2.jpg,1\r\n" +
	"A2Z,farm1_1.jpg,5\r\n" +
	"A2Z,farm1_1.jpg,2\r\n" +
	"A2Z,farm1_3.jpg,3\r\n"

const embeddingsCSV = "item_id,embedding\nfarm1_1.jpg,\"[1,0]\"\nfarm1_2.jpg,\"[0,1]\"\nfarm1_3.jpg,\"[1,1]\"\nfarm1_4.jpg,\"[0,0]\"\n"

func importer(t *testing.T, ratings, embeddings string) *FlickrAES {
	dir := t.TempDir()
	return &FlickrAES{
		Ratings: write(t, "r.csv", []byte(ratings)), Embeddings: write(t, "e.csv", []byte(embeddings)),
		Items: filepath.Join(dir, "items.jsonl"), Events: filepath.Join(dir, "events.jsonl"), Seed: 1,
	}
}

func TestFlickrAES(t *testing.T) {
	f := importer(t, ratingsCSV, embeddingsCSV)
	res, err := f.Run()
	if want := (FlickrAESResult{Items: 4, Events: 5, Users: 2, Dim: 2}); err != nil || res != want {
		t.Fatalf("got %+v, %v, want %+v", res, err, want)
	}
	read, broken := items(t, f.Items)
	if len(broken) > 0 || len(read) != 4 || !reflect.DeepEqual(read[2], schemas.Item{ItemID: "farm1_3.jpg", Embedding: []float32{1, 1}}) {
		t.Errorf("items %v, broken %v", read, broken)
	}
	made, broken := events(t, f.Events)
	if len(broken) > 0 {
		t.Fatal(broken)
	}
	got := map[string]float64{}
	for i, e := range made {
		if e.Kind != schemas.KindRating || i > 0 && !e.OccurredAt.After(made[i-1].OccurredAt) {
			t.Errorf("event %d: %+v", i, e)
		}
		got[e.EventID] = *e.Value
	}
	want := map[string]float64{
		"flickr-aes/A1Q/farm1_1.jpg": 4, "flickr-aes/A1Q/farm1_2.jpg": 1, "flickr-aes/A2Z/farm1_3.jpg": 3,
		"flickr-aes/A2Z/farm1_1.jpg": got["flickr-aes/A2Z/farm1_1.jpg"], "flickr-aes/A2Z/farm1_1.jpg/2": 7 - got["flickr-aes/A2Z/farm1_1.jpg"],
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// The same seed gives the same file; workers do not come one after the other.
func TestFlickrAESOrder(t *testing.T) {
	var b strings.Builder
	b.WriteString("worker, imagePair, score\n")
	for i := range 200 {
		fmt.Fprintf(&b, "W%d,farm1_%d.jpg,%d\n", i/100, i%4+1, i%5+1)
	}
	order := func(seed uint64) string {
		f := importer(t, b.String(), embeddingsCSV)
		f.Seed = seed
		if _, err := f.Run(); err != nil {
			t.Fatal(err)
		}
		made, _ := events(t, f.Events)
		s := ""
		for _, e := range made {
			s += e.UserID[1:]
		}
		return s
	}
	one := order(1)
	if one != order(1) || one == order(2) || strings.Count(one[:100], "0") > 75 {
		t.Errorf("orders %s and %s", one, order(2))
	}
}

func TestFlickrAESBadRows(t *testing.T) {
	for _, c := range []struct{ row, want string }{
		{"A1Q,farm1_9.jpg,4", "line 7: image farm1_9.jpg has no embedding"},
		{"A1Q,farm1_1.jpg,", "line 7: has no score"},
		{"A1Q,farm1_1.jpg,good", `line 7: score is not a number: "good"`},
		{"A1Q,farm1_1.jpg,6", "line 7: bad_value: "},
		{",farm1_1.jpg,4", "line 7: missing_field: "},
		{"A1Q,farm1_1.jpg", "line 7: has 2 cells where line 1 names 3 columns"},
	} {
		f := importer(t, ratingsCSV+c.row+"\n", embeddingsCSV)
		_, err := f.Run()
		if err == nil || !strings.HasPrefix(err.Error(), f.Ratings+": "+c.want) {
			t.Errorf("%s: error %v, want %q", c.row, err, c.want)
		}
		if left, err := os.ReadDir(filepath.Dir(f.Events)); err != nil || len(left) > 0 {
			t.Errorf("%s: a broken import left %v, %v", c.row, left, err)
		}
		var said []string
		f.Skip, f.OnBad = true, func(err error) { said = append(said, err.Error()) }
		if res, err := f.Run(); err != nil || res.Events != 5 || res.Bad != 1 || len(said) != 1 {
			t.Errorf("%s: skipping gives %+v, %v, said %q", c.row, res, err, said)
		}
	}
	f := importer(t, "worker,score\nA1Q,4\n", embeddingsCSV)
	if _, err := f.Run(); err == nil || !strings.HasSuffix(err.Error(), "has no column imagePair") {
		t.Errorf("a file of another form: %v", err)
	}
}

func TestNPY(t *testing.T) {
	for name, want := range map[string][]float32{
		"f2": {.5, -1.1920929e-7, 3}, "f4": {.5, -1e-7, 3}, "f8": {.5, -1e-7, 3},
	} {
		file, err := os.Open("testdata/matrix_" + name + ".npy")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		n, err := newNPY(file)
		if err != nil {
			t.Fatal(name, err)
		}
		one, err1 := n.row()
		_, err2 := n.row()
		_, err3 := n.row()
		if n.rows != 2 || n.cols != 3 || !reflect.DeepEqual(one, want) || err1 != nil || err2 != nil || !errors.Is(err3, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %d x %d, %v, errors %v %v %v", name, n.rows, n.cols, one, err1, err2, err3)
		}
	}
}

func TestFlickrAESOfMatrix(t *testing.T) {
	f := importer(t, "worker, imagePair, score\nA,b.jpg,5\n", "")
	f.Embeddings, f.Names = "testdata/matrix_f4.npy", write(t, "names.txt", []byte("a.jpg\nb.jpg\n"))
	res, err := f.Run()
	if want := (FlickrAESResult{Items: 2, Events: 1, Users: 1, Dim: 3}); err != nil || res != want {
		t.Fatalf("got %+v, %v, want %+v", res, err, want)
	}
	for _, c := range []struct{ matrix, names, want string }{
		{"matrix_f4", "a.jpg\n", "has 2 rows and "},
		{"matrix_f4", "a.jpg\nb.jpg\nc.jpg\n", "line 3: there are more names than the 2 rows"},
		{"matrix_f4", "a.jpg\n\n", "row 2: missing_field: "},
		{"matrix_f4", "a.jpg\na.jpg\n", "image a.jpg has two embeddings"},
		{"matrix_fortran", "a.jpg\nb.jpg\n", "is stored column by column"},
		{"matrix_int", "a.jpg\nb.jpg\n", "is no NumPy file of a two-dimensional array of float16, float32 or float64: "},
	} {
		f.Embeddings, f.Names = "testdata/"+c.matrix+".npy", write(t, "names.txt", []byte(c.names))
		if _, err := f.Run(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v, want %q", c.matrix, c.names, err, c.want)
		}
	}
}
