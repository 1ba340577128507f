package prior

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestCheckpointRoundTrip(t *testing.T) {
	s := noisyState(t, tinyConfig(), 1)
	s.Step, s.Seed = 1<<60, math.MaxUint64
	s.Meta = map[string]string{"cursor": `{"0":12}`, "born": "2026-01-01T00:00:00Z"}
	dir := t.TempDir()
	path := filepath.Join(dir, "prior.safetensors")
	for range 2 { // the second replaces the first
		sum, err := s.Save(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := sha256.Sum256(data); sum != hex.EncodeToString(want[:]) {
			t.Errorf("sum %s is not the file's", sum)
		}
	}
	got, err := LoadState(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, s) {
		t.Error("the state read is not the state written")
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files are left in the directory", len(files))
	}
	if _, err := s.Save(filepath.Join(dir, "absent", "prior")); err == nil {
		t.Error("saved to a directory that does not exist")
	}
}

func TestSaveRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prior.safetensors")
	s := noisyState(t, tinyConfig(), 2)
	s.EMA[len(s.EMA)-1] = float32(math.NaN())
	_, err := s.Save(path)
	if err == nil || !strings.Contains(err.Error(), "tensor ema.out.bias holds NaN at 2") {
		t.Errorf("error %v", err)
	}
	s = noisyState(t, tinyConfig(), 2)
	s.V = s.V[1:]
	if _, err := s.Save(path); err == nil || !strings.Contains(err.Error(), "v has ") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was written")
	}
}

// encoded returns a small checkpoint's bytes.
func encoded(t testing.TB) []byte {
	t.Helper()
	data, err := noisyState(t, Config{Kind: "mlp", Dim: 2, Hidden: 2, Blocks: 1, Heads: 1, MaxTokens: 1, Contexts: 1, Targets: 1, Timesteps: 4}, 3).encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withHeader replaces a text in the header, which must occur, and mends the header's length.
func withHeader(t *testing.T, data []byte, from, to string) []byte {
	t.Helper()
	n := binary.LittleEndian.Uint64(data)
	header := bytes.Replace(data[8:8+n], []byte(from), []byte(to), 1)
	if bytes.Equal(header, data[8:8+n]) {
		t.Fatalf("the header does not hold %s", from)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), data[8+n:]...)
}

func TestDecodeRefuses(t *testing.T) {
	good := encoded(t)
	if _, err := decodeState(good); err != nil {
		t.Fatal(err)
	}
	header := 8 + int(binary.LittleEndian.Uint64(good))
	nan := bytes.Clone(good)
	binary.LittleEndian.PutUint32(nan[header+4*4:], math.Float32bits(float32(math.NaN())))
	scale := bytes.Clone(good)
	clear(scale[header+2*4 : header+3*4])
	flipped := bytes.Clone(good)
	flipped[len(flipped)-4] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "0 bytes are no safetensors file"},
		{"text", []byte("PK\x03\x04 something else entirely"), "not a safetensors file"},
		{"cut header", good[:header-10], "cut short"},
		{"cut tensors", good[:len(good)-1], "cut short"},
		{"no JSON", append(binary.LittleEndian.AppendUint64(nil, 2), "{]"...), "decoding header"},
		{"another file", append(binary.LittleEndian.AppendUint64(nil, 2), "{}"...), "no __metadata__"},
		{"another kind", withHeader(t, good, "rebeca.prior", "rebeca.other"), `kind "rebeca.other"`},
		{"newer", withHeader(t, good, `"format_version":"1"`, `"format_version":"3"`), "format version 3 is newer than 2"},
		{"no version", withHeader(t, good, `"format_version":"1"`, `"format_version":"x"`), `format version "x"`},
		{"config", withHeader(t, good, `\"heads\":1`, `\"heads\":7`), "config: hidden: 2"},
		{"other shape", withHeader(t, good, `\"max_tokens\":1`, `\"max_tokens\":0`), "max_tokens: 0"},
		{"larger config", withHeader(t, good, `\"hidden\":2`, `\"hidden\":4000`), "cut short"},
		{"smaller config", withHeader(t, good, `\"dim\":2`, `\"dim\":1`), "tensor stats.mean: F32 of shape [2], this configuration has F32 of shape [1]"},
		{"type", withHeader(t, good, `"params.in.bias":{"dtype":"F32"`, `"params.in.bias":{"dtype":"F16"`), "tensor params.in.bias: F16"},
		{"missing", withHeader(t, good, `"m.out.bias"`, `"m.out.base"`), "tensor m.out.bias: missing"},
		{"offsets", withHeader(t, good, `[8,16]`, `[8,24]`), "tensor stats.scale: offsets [8 24]"},
		{"beyond", withHeader(t, good, `[8,16]`, `[80000,80008]`), "tensor stats.scale: offsets [80000 80008]"},
		{"NaN", nan, "tensor params.token.in.weight holds NaN at 0"},
		{"scale", scale, "scale 0"},
		{"flipped bit", flipped, "damaged after it was written"},
		{"other step", withHeader(t, good, `"step":"0"`, `"step":"1"`), "damaged after it was written"},
		{"unknown option", withHeader(t, good, `\"timesteps\":4`, `\"timesteps\":4,\"epochs\":1`), "unknown field"},
		{"unknown loss", withHeader(t, good, `\"schedule\":\"cosine\"`, `\"schedule\":\"cosinus\"`), "config: loss.schedule"},
		{"unknown kind", withHeader(t, good, `\"kind\":\"mlp\"`, `\"kind\":\"gan\"`), "config: kind"},
		{"seed", withHeader(t, good, `"seed":"3"`, `"seed":"-3"`), "decoding seed"},
		{"step", withHeader(t, good, `"step":"0"`, `"step":"-1"`), "step -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.safetensors")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadState(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := LoadState(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v for a file that does not exist", err)
	}
}

// TestReadsWhatOlderBuildsWrote: a file without a loss and without a checksum is that of the default loss, and a default mlp is
// still written in the format that those builds read.
func TestReadsWhatOlderBuildsWrote(t *testing.T) {
	good := encoded(t)
	sum := regexp.MustCompile(`,"checksum":"[0-9a-f]*"`).Find(good)
	old := withHeader(t, good, string(sum), "")
	old = withHeader(t, old, `,\"loss\":{\"objective\":\"x0\",\"schedule\":\"cosine\",\"time_sampling\":\"uniform\",\"weighting\":\"none\"}`, "")
	s, err := decodeState(old)
	if err != nil {
		t.Fatal(err)
	}
	if s.Config.resolved().Loss != DefaultLoss() || s.version() != 1 {
		t.Errorf("read as %+v, format %d", s.Config, s.version())
	}
	s.Config.Loss = Loss{Objective: objectiveV}
	if s.version() != 2 {
		t.Error("another objective would be misread by builds that do not know it")
	}
}

// FuzzDecodeState: whatever the bytes, decoding returns a valid state or an error, and a state survives a round trip.
func FuzzDecodeState(f *testing.F) {
	good := encoded(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Add(binary.LittleEndian.AppendUint64(nil, math.MaxUint64))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 2), "{}"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeState(again)
		if err != nil || !reflect.DeepEqual(back.Params, s.Params) || !maps.Equal(back.Meta, s.Meta) {
			t.Fatalf("a decoded state does not survive: %v", err)
		}
	})
}

// TestOldCheckpointHasTheDefaultLoss reads a file whose configuration does not name the loss.
func TestOldCheckpointHasTheDefaultLoss(t *testing.T) {
	s := noisyState(t, tinyConfig(), 1)
	s.Config.Loss = Loss{}
	data, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data[:2000]), "objective") {
		t.Fatal("the file names a loss")
	}
	got, err := decodeState(data)
	if err != nil || got.Config.Loss != DefaultLoss() {
		t.Errorf("loss %+v, %v", got.Config.Loss, err)
	}
}
