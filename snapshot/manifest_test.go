package snapshot

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

var goodManifest = `{"format":1,"name":"snap-1","created_at":"2026-03-04T05:06:07Z","dim":16,"vector_dim":96,"partitions":4,
 "offsets":[{"topic":"feedback","partition":0,"next":10}],
 "prior":{"version":"1-ab","file":"prior/1-ab.safetensors","topic":"feedback","cursor":{"0":10}},
 "users":3,"keys":7,"state_sha256":"` + strings.Repeat("a", 64) + `",
 "files":[{"name":"users.arrow","rows":3,"bytes":100,"sha256":"` + strings.Repeat("b", 64) + `"},
  {"name":"state.arrow","rows":7,"bytes":100,"sha256":"` + strings.Repeat("c", 64) + `"},
  {"name":"prior/1-ab.safetensors","rows":0,"bytes":100,"sha256":"` + strings.Repeat("d", 64) + `"}]}`

func TestDecodeManifest(t *testing.T) {
	m, err := DecodeManifest([]byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	if m.Dim != 16 || m.Prior.Cursor[0] != 10 || m.Offsets[0] != (Offset{"feedback", 0, 10}) || len(m.Files) != 3 || m.Size() != 300 {
		t.Errorf("manifest %+v", m)
	}
}

func TestDecodeManifestRefuses(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{`"format":1,`, `"format":2,"later":true,`, "format 2, this version reads 1"},
		{`"format":1,`, ``, "format: missing"},
		{`"dim":16`, `"dim":-1`, "dim: -1"},
		{`"vector_dim":96`, `"vector_dim":-1`, "vector_dim: -1"},
		{`"partitions":4`, `"partitions":0`, "partitions: 0"},
		{`"2026-03-04T05:06:07Z"`, `"0001-01-01T00:00:00Z"`, "created_at: missing"},
		{`"next":10`, `"next":-1`, "offsets[0]"},
		{`"next":10}`, `"next":10},{"topic":"feedback","partition":0,"next":11}`, "offsets[1]: feedback/0 is listed twice"},
		{`"users":3`, `"users":4`, "users.arrow has 3 rows where the manifest counts 4"},
		{`"keys":7`, `"keys":8`, "state.arrow has 7 rows"},
		{strings.Repeat("a", 64), "aa", "state_sha256"},
		{strings.Repeat("b", 64), strings.Repeat("x", 64), "files[0].sha256"},
		{`"name":"users.arrow"`, `"name":"../users.arrow"`, "files[0].name"},
		{`"name":"users.arrow"`, `"name":"/etc/passwd"`, "files[0].name"},
		{`"name":"users.arrow"`, `"name":"manifest.json"`, "files[0].name"},
		{`"name":"users.arrow"`, `"name":"state.arrow"`, "files[1].name: state.arrow is listed twice"},
		{`"name":"users.arrow"`, `"name":"people.arrow"`, "files: users.arrow is missing"},
		{`"bytes":100`, `"bytes":-1`, "files[0]: users.arrow has a negative count"},
		{`"file":"prior/1-ab.safetensors"`, `"file":"users.arrow"`, "prior.file"},
		{`"file":"prior/1-ab.safetensors"`, `"file":"prior/2"`, "prior.file"},
		{`"cursor":{"0":10}`, `"cursor":{"0":11}`, "checkpoint is ahead of the state: feedback/0 trained up to 11, folded up to 10"},
		{`"keys":7`, `"keys":7,"extra":1`, `unknown field "extra"`},
	} {
		data := strings.Replace(goodManifest, tc.from, tc.to, 1)
		if data == goodManifest {
			t.Fatalf("%q is not in the manifest", tc.from)
		}
		_, err := DecodeManifest([]byte(data))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.to, err, tc.want)
		}
		if errors.Is(err, ErrFormat) != strings.Contains(tc.want, "this version reads") {
			t.Errorf("%s: error %v, ErrFormat or not", tc.to, err)
		}
	}
	if _, err := DecodeManifest([]byte(goodManifest + "{}")); err == nil {
		t.Error("trailing data was read over")
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeManifest(data)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeManifest(again)
		if err != nil || !reflect.DeepEqual(m.Files, back.Files) || !m.CreatedAt.Equal(back.CreatedAt) {
			t.Fatalf("%s reads back as %+v, %v", again, back, err)
		}
	})
}
