package rebeca

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rebeca/schemas"
	"rebeca/table"
)

// decoding turns a stand into one with the shapes decoder and a catalogue.
func (s *stand) decoding() {
	s.t.Helper()
	s.config.Prior.Dim, s.config.Decoder.Manifest = 16, "shapes"
	for i := range 300 {
		e := make([]float32, 16)
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		for d := range e {
			e[d] = float32(rng.NormFloat64() * .2)
		}
		e[i%4] += 2
		id := fmt.Sprintf("item-%d", i)
		v, err := schemas.Item{ItemID: id, Embedding: e}.Encode()
		if err != nil {
			s.t.Fatal(err)
		}
		s.produce("items", []byte(id), v)
	}
}

// asked asks for images and returns the records.
func (s *stand) asked(svc *Service, user string, n int) []schemas.Generated {
	s.t.Helper()
	var out struct{ Items []schemas.Generated }
	body := s.post(svc, "/v1/users/"+user+"/generate", fmt.Sprintf(`{"count":%d}`, n), http.StatusOK)
	if err := json.Unmarshal(body, &out); err != nil || len(out.Items) != n {
		s.t.Fatalf("%d records: %v", len(out.Items), err)
	}
	return out.Items
}

func (s *stand) get(svc *Service, path string) (int, []byte) {
	s.t.Helper()
	res, err := http.Get(svc.URL() + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, body
}

// TestPicturesOfAService is the whole path of large pictures: requests get records whose pictures are in the bucket, and at the door, after a
// restart too, until their user is forgotten; those of others stay.
func TestPicturesOfAService(t *testing.T) {
	server := s3Server(t)
	s := newStand(t)
	s.decoding()
	s.config.Images.InlineMax, s.config.Images.Bucket = 0, server.URL("pictures", "made/")
	svc, stop := s.serve()
	s.until("a version is there", func() bool { return svc.Status().PriorVersion != "" })
	ada, bob := s.asked(svc, "ada", 20), s.asked(svc, "bob", 3)
	check := func(records []schemas.Generated, want int) {
		t.Helper()
		for _, r := range records {
			if r.Image == nil || r.Image.URI != "s3://pictures/made/"+r.Image.SHA256 || len(r.Image.Data) > 0 {
				t.Fatalf("record %s: image %+v, %+v", r.ID, r.Image, r.NoImage)
			}
			code, body := s.get(svc, "/v1/images/"+r.Image.SHA256)
			if code != want {
				t.Fatalf("GET of %s: %d %s", r.Image.SHA256, code, body)
			}
			if sum := sha256.Sum256(body); want == 200 && (hex.EncodeToString(sum[:]) != r.Image.SHA256 || !bytes.Contains(body, []byte(r.ID))) {
				t.Errorf("the door has other bytes of %s", r.ID)
			}
		}
	}
	check(ada, 200)
	check(bob, 200)
	if n := len(server.Names()); n != 23 {
		t.Errorf("%d objects of 23 records", n)
	}
	stop()
	svc, _ = s.serve()
	svc.pictures.giveUp(time.Now(), svc.claimedPartitions()) // nothing to give up: records point at all
	svc.pictures.clean(t.Context(), svc.claimedPartitions())
	check(ada, 200)
	if st := svc.Status().Images; st == nil || st.Decoding != 0 || st.BucketError != "" {
		t.Errorf("status %+v", st)
	}
	s.produce("feedback", []byte("ada"), nil)
	s.until("ada's pictures are gone", func() bool { return len(server.Names()) == 3 })
	check(ada, 404)
	check(bob, 200)
}

// TestInlinePicturesAtTheDoor: a small picture is at the door under its hash too, until its user is forgotten.
func TestInlinePicturesAtTheDoor(t *testing.T) {
	s := newStand(t)
	s.decoding()
	s.config.Images.Format = "jpeg"
	svc, _ := s.serve()
	s.until("a version is there", func() bool { return svc.Status().PriorVersion != "" })
	r := s.asked(svc, "ada", 1)[0]
	if r.Image == nil || r.Image.MediaType != "image/jpeg" || len(r.Image.Data) == 0 || r.Image.URI != "" {
		t.Fatalf("image %+v", r.Image)
	}
	if code, body := s.get(svc, "/v1/images/"+r.Image.SHA256); code != 200 || !bytes.Equal(body, r.Image.Data) {
		t.Errorf("at the door: %d, %d bytes", code, len(body))
	}
	s.produce("feedback", []byte("ada"), nil)
	s.until("forgotten", func() bool {
		code, _ := s.get(svc, "/v1/images/"+r.Image.SHA256)
		return code == 404
	})
}

// TestOneObjectCannotBeDeleted: those behind it are, and a bucket that deletes none is asked for a few alone.
func TestOneObjectCannotBeDeleted(t *testing.T) {
	dir := t.TempDir()
	e := newEasel(t, &drawer{batch: 4}, quick(), "file://"+filepath.ToSlash(dir))
	stuck := func(o table.Object) { // a directory with something in it
		if err := os.MkdirAll(filepath.Join(dir, hex.EncodeToString(o[:]), "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for n := range byte(2 * refusalsInARow) {
		if err := e.table.NoteObject(0, "ada", table.Object{n}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	e.pool.pictures.giveUp(time.Now(), []int32{0})
	stuck(table.Object{0})
	stuck(table.Object{2})
	e.pool.pictures.clean(t.Context(), []int32{0})
	if left := e.doomed(); !slices.Equal(left, []table.Object{{0}, {2}}) || e.pool.pictures.status().ToDelete != 2 {
		t.Fatalf("%d are left, %d by the status", len(left), e.pool.pictures.status().ToDelete)
	}
	for n := range byte(2 * refusalsInARow) {
		if err := e.table.NoteObject(0, "ada", table.Object{n}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n < refusalsInARow {
			stuck(table.Object{n})
		}
	}
	e.pool.pictures.giveUp(time.Now(), []int32{0})
	e.pool.pictures.clean(t.Context(), []int32{0})
	if n := e.pool.pictures.status().ToDelete; n != 2*refusalsInARow || len(e.doomed()) != n {
		t.Errorf("a bucket that refuses was asked for all: %d are left, %d by the status", len(e.doomed()), n)
	}
}
