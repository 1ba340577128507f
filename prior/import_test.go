package prior

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// publishedDict returns the sections of a fixture's state dict.
func publishedDict(t testing.TB, kind string) []section {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", kind+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := decodeDict(data)
	if err != nil {
		t.Fatal(err)
	}
	var out []section
	for name, shape := range f.shapes {
		if own, ok := strings.CutPrefix(name, "params."); ok {
			values, err := f.read(name, shape...)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, section{own, shape, values})
		}
	}
	return out
}

func encodeDict(t testing.TB, metadata map[string]string, sections []section) []byte {
	t.Helper()
	header, err := encodeHeader(metadata, sections)
	if err != nil {
		t.Fatal(err)
	}
	return append(header, encodeBody(sections)...)
}

func TestImportRefuses(t *testing.T) {
	heads := map[string]string{"heads": "2"}
	change := func(kind, name string, f func(s *section)) []byte {
		sections := publishedDict(t, kind)
		for i := range sections {
			if sections[i].name == name {
				f(&sections[i])
				return encodeDict(t, heads, sections)
			}
		}
		t.Fatalf("no tensor %s", name)
		return nil
	}
	rename := func(s *section) { s.name = "other" }
	shape := func(s *section) { s.shape = []int{len(s.data), 1} }
	good := encodeDict(t, heads, publishedDict(t, kindReference))
	if _, err := importReference(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "no safetensors file"},
		{"no tensors", encodeDict(t, nil, nil), "dim: 0"},
		{"checkpoint", encoded(t), "dim: 0"},
		{"fewer heads", encodeDict(t, nil, publishedDict(t, kindReference)), "heads: 0"},
		{"odd heads", encodeDict(t, map[string]string{"heads": "3"}, publishedDict(t, kindReference)), "multiple of heads (3)"},
		{"heads", encodeDict(t, map[string]string{"heads": "many"}, publishedDict(t, kindReference)), "decoding heads"},
		{"objective", encodeDict(t, map[string]string{"heads": "2", "objective": "w"}, publishedDict(t, kindReference)), "loss.objective"},
		{"cut", good[:len(good)/2], "cut short"},
		{"cut by one", good[:len(good)-4], "tensor "},
		{"missing", change(kindReference, "blocks.1.ada2.shift.bias", rename), "tensor blocks.1.ada2.shift.bias: "},
		{"missing in a stack", change(kindReference, "blocks.0.self_attn.in_proj_weight", rename), "tensor blocks.0.self_attn.in_proj_weight: "},
		{"shape", change(kindReference, "head.bias", shape), "tensor head.bias: "},
		{"columns", change(kindReference, "head.weight", shape), "tensor head.weight: "},
		{"embedding", change(kindReference, "score_emb.weight", shape), "tensor score_emb.weight: "},
		{"left over", encodeDict(t, heads, append(publishedDict(t, kindReference), section{"pos_emb", []int{1}, []float32{1}})), "tensor pos_emb: not one of kind reference"},
		{"norm", change(kindSimulation, "blocks.1.bn2.weight", rename), "tensor blocks.1.bn2.weight: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dict.safetensors")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := ImportReference(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := ImportReference(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("imported a file that does not exist")
	}
}

// TestImportedPriorIsACheckpoint saves an imported prior and reads it back.
func TestImportedPriorIsACheckpoint(t *testing.T) {
	for kind, sections := range map[string][]section{
		kindReference: publishedDict(t, kindReference), kindSimulation: tinySimulation(),
	} {
		s, err := importReference(encodeDict(t, map[string]string{"heads": "2"}, sections))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "prior.safetensors")
		if _, err := s.Save(path); err != nil {
			t.Fatal(err)
		}
		back, err := LoadState(path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, s) || back.Config.Kind != kind {
			t.Errorf("%s: the state read is not the state written", kind)
		}
	}
}

// tinySimulation is a state dict of one dimension, two channels and one block, small enough to fuzz.
func tinySimulation() []section {
	var out []section
	add := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		out = append(out, section{name, shape, make([]float32, n)})
	}
	add("user_emb.weight", 1, 1)
	add("score_emb.weight", 2, 1)
	for name, inputs := range map[string]int{"fc_in": 103, "blocks.0.fc1": 2, "blocks.0.fc2": 2} {
		add(name+".weight", 2, inputs)
		add(name+".bias", 2)
	}
	for _, name := range []string{"bn_in", "blocks.0.bn1", "blocks.0.bn2"} {
		add(name+".weight", 2)
		add(name+".bias", 2)
	}
	add("fc_out.weight", 1, 2)
	add("fc_out.bias", 1)
	return out
}

// FuzzImport: whatever the bytes, importing returns a valid state or an error.
func FuzzImport(f *testing.F) {
	f.Add(encodeDict(f, nil, tinySimulation()))
	f.Add([]byte{})
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 2), "{}"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := importReference(data)
		if err != nil {
			return
		}
		if err := s.validate(); err != nil {
			t.Fatalf("an imported state is not valid: %v", err)
		}
	})
}
