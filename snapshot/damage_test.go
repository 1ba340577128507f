package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCrash cuts the power after every number of operations. What List shows afterwards is whole.
func TestCrash(t *testing.T) {
	src := newSource(t, 300)
	for operations := 0; ; operations++ {
		for _, keepRename := range []bool{false, true} {
			dir := t.TempDir()
			d := newCrashDisk(operations)
			_, err := create(context.Background(), d, dir, src, Options{})
			if !d.crashed {
				if err != nil {
					t.Fatal(err)
				}
				if operations < 10 {
					t.Fatalf("only %d operations were counted", operations)
				}
				return
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("after %d operations: error %v", operations, err)
			}
			d.cut(t, keepRename)
			listed, err := List(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range listed {
				if _, err := Verify(context.Background(), l.Path, Options{}); err != nil {
					t.Fatalf("after %d operations %s is listed: %v", operations, l.Path, err)
				}
			}
			mustCreate(t, dir, src, Options{})
			if left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")); len(left) > 0 {
				t.Fatalf("after %d operations and another snapshot, %q is still there", operations, left)
			}
		}
	}
}

func TestDamageIsNamed(t *testing.T) {
	for _, tc := range []struct {
		name, file, want string
		damage           func(path string) error
	}{
		{"flipped bit in the state", stateFile, "verifying state.arrow: SHA-256", flip},
		{"flipped bit in the users", usersFile, "verifying users.arrow: SHA-256", flip},
		{"flipped bit in the weights", "prior/7-abcdef.safetensors", "verifying prior/7-abcdef.safetensors: SHA-256", flip},
		{"truncated state", stateFile, "verifying state.arrow: 1000 bytes where the manifest has", func(p string) error { return os.Truncate(p, 1000) }},
		{"missing users", usersFile, "verifying users.arrow: open", os.Remove},
		{"truncated manifest", manifestFile, "decoding manifest", func(p string) error { return os.Truncate(p, 100) }},
		{"missing manifest", manifestFile, "reading manifest", os.Remove},
		{"manifest too large", manifestFile, "larger than", func(p string) error { return os.Truncate(p, maxManifest+1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := newSource(t, 200)
			_, path := mustCreate(t, t.TempDir(), src, Options{})
			if err := tc.damage(filepath.Join(path, filepath.FromSlash(tc.file))); err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(context.Background(), path, Options{}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("verify: error %v, want %q", err, tc.want)
			}
			root := t.TempDir()
			var got []pair
			_, err := Restore(context.Background(), path, filepath.Join(root, "s"), filepath.Join(root, "p"), collect(&got), Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("restore: error %v, want %q", err, tc.want)
			}
			if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
				t.Errorf("restore of a damaged snapshot wrote %v (error %v)", entries, err)
			}
		})
	}
}

func flip(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 4
	return os.WriteFile(path, data, 0o644)
}

func TestAllDamageIsNamed(t *testing.T) {
	_, path := mustCreate(t, t.TempDir(), newSource(t, 200), Options{})
	for _, f := range []string{usersFile, stateFile} {
		if err := flip(filepath.Join(path, f)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Verify(context.Background(), path, Options{})
	if err == nil || !strings.Contains(err.Error(), usersFile) || !strings.Contains(err.Error(), stateFile) {
		t.Errorf("error %v does not name both files", err)
	}
}

// TestManifestAgainstContent: hashes that match do not excuse a table of another shape.
func TestManifestAgainstContent(t *testing.T) {
	for want, edit := range map[string]func(path string, m *Manifest) error{
		"reading state.arrow: arrow/ipc: could not decode footer": func(path string, m *Manifest) error {
			return os.WriteFile(filepath.Join(path, stateFile), make([]byte, 4096), 0o644)
		},
		"column": func(path string, m *Manifest) error { m.VectorDim = 7; return nil },
		"keys hash to": func(path string, m *Manifest) error {
			m.StateHash = strings.Repeat("0", 64)
			return nil
		},
		"401 keys where the manifest counts 402": func(path string, m *Manifest) error { m.Keys++; m.Files[1].Rows++; return nil },
		"200 rows where the manifest counts 201": func(path string, m *Manifest) error { m.Users++; m.Files[0].Rows++; return nil },
	} {
		m, path := mustCreate(t, t.TempDir(), newSource(t, 200), Options{})
		if err := edit(path, &m); err != nil {
			t.Fatal(err)
		}
		rehash(t, path, m)
		_, err := Verify(context.Background(), path, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// rehash writes a manifest that matches the files as they are.
func rehash(t *testing.T, path string, m Manifest) {
	t.Helper()
	for i, f := range m.Files {
		s, err := newSink(osDisk{}, filepath.Join(t.TempDir(), "copy"), f.Name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(path, filepath.FromSlash(f.Name)))
		if err != nil {
			t.Fatal(err)
		}
		s.Write(data)
		if m.Files[i], err = s.finish(f.Rows); err != nil {
			t.Fatal(err)
		}
	}
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, manifestFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRestoreOnlyIntoEmptyDirectories(t *testing.T) {
	_, path := mustCreate(t, t.TempDir(), newSource(t, 10), Options{})
	full, empty := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "MANIFEST"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var got []pair
	for _, dirs := range [][2]string{{full, empty}, {empty, full}} {
		_, err := Restore(context.Background(), path, dirs[0], dirs[1], collect(&got), Options{})
		if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), full) {
			t.Errorf("restore into %v: error %v", dirs, err)
		}
	}
	for _, dirs := range [][2]string{{empty, empty}, {empty, filepath.Join(empty, "prior")}, {filepath.Join(empty, "x"), empty}} {
		if _, err := Restore(context.Background(), path, dirs[0], dirs[1], collect(&got), Options{}); err == nil || !strings.Contains(err.Error(), "lies in") {
			t.Errorf("restore into %v: error %v", dirs, err)
		}
	}
}

func TestLoadError(t *testing.T) {
	_, path := mustCreate(t, t.TempDir(), newSource(t, 10), Options{})
	root := t.TempDir()
	load := func(context.Context, string, Manifest, func() ([]byte, []byte, error)) error { return errFake }
	if _, err := Restore(context.Background(), path, filepath.Join(root, "s"), filepath.Join(root, "p"), load, Options{}); !errors.Is(err, errFake) {
		t.Errorf("error %v", err)
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	if l, err := List(filepath.Join(dir, "absent")); err != nil || len(l) != 0 {
		t.Errorf("a directory that is not there lists %v, %v", l, err)
	}
	src := newSource(t, 5)
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, days := range []int{1, 3, 2} {
		mustCreate(t, dir, src, Options{Now: func() time.Time { return base.AddDate(0, 0, days) }})
	}
	for _, name := range []string{"notes", tempPrefix + "snap", "broken"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{tempPrefix + "snap", "broken"} {
		if err := os.WriteFile(filepath.Join(dir, name, manifestFile), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	listed, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"snap-20260104T000000.000000Z", "snap-20260103T000000.000000Z", "snap-20260102T000000.000000Z", "broken"}
	if len(listed) != len(want) {
		t.Fatalf("%d snapshots are listed: %+v", len(listed), listed)
	}
	for i, l := range listed {
		if filepath.Base(l.Path) != want[i] || (l.Err != nil) != (want[i] == "broken") {
			t.Errorf("entry %d is %s, error %v, want %s", i, l.Path, l.Err, want[i])
		}
	}
}

func TestOneWriterAtATime(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	src := newSource(t, 5)
	if _, err := Create(context.Background(), dir, src, Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v, want ErrBusy", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	o := Options{Now: func() time.Time { return at }}
	mustCreate(t, dir, src, o)
	if _, err := Create(context.Background(), dir, src, o); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a second snapshot of the same instant: error %v", err)
	}
}

func TestUnknownCompression(t *testing.T) {
	if _, err := Create(context.Background(), t.TempDir(), newSource(t, 1), Options{Compression: "lz5"}); err == nil || !strings.Contains(err.Error(), `compression: "lz5"`) {
		t.Errorf("error %v", err)
	}
}
