package schemas

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the goldens of new corpus files; old ones must never change")

// TestCorpus decodes records as producers have written them since the first version, one JSON value a line in
// testdata/corpus/<topic>.*.jsonl, and compares what is re-encoded, or the reason of refusal, with the golden beside it. Files
// are added when a schema grows; a change to an old golden breaks producers.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, file := range files {
		topic, _, _ := strings.Cut(filepath.Base(file), ".")
		in, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		for _, line := range bytes.Split(bytes.TrimSuffix(in, []byte("\n")), []byte("\n")) {
			v, err := decoders[topic](line)
			if err != nil {
				out.WriteString("! " + err.Error() + "\n")
				continue
			}
			b, err := v.(interface{ Encode() ([]byte, error) }).Encode()
			if err != nil {
				t.Fatalf("%s: encoding: %v", file, err)
			}
			out.Write(append(b, '\n'))
			if !valid(topic, b) {
				t.Errorf("%s: the schema refuses what the encoder writes: %s", file, b)
			}
		}
		golden := strings.TrimSuffix(file, ".jsonl") + ".golden"
		if *update {
			if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s differs from its golden:\n%s", file, out.Bytes())
		}
	}
}

func FuzzFeedback(f *testing.F)     { fuzz(f, "feedback") }
func FuzzItem(f *testing.F)         { fuzz(f, "items") }
func FuzzRequest(f *testing.F)      { fuzz(f, "requests") }
func FuzzGenerated(f *testing.F)    { fuzz(f, "generated") }
func FuzzVector(f *testing.F)       { fuzz(f, "vectors") }
func FuzzPriorVersion(f *testing.F) { fuzz(f, "prior") }

// fuzz holds a decoder to: no panic, errors are listed rejections, what it accepts the schema accepts, and accepted
// records re-encode and decode to the same bytes.
func fuzz(f *testing.F, topic string) {
	f.Add([]byte(bases[topic]))
	f.Add([]byte(with(topic, "x", `{"y":[1,"]"]}`)))
	f.Add([]byte("{}"))
	for name := range jsonMembers(bases[topic]) {
		f.Add([]byte(with(topic, name, "-")))
		f.Add([]byte(with(topic, name, "null")))
		f.Add([]byte(with(topic, name, `"\ud800"`)))
		f.Add([]byte(with(topic, name, "-1e309")))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		v, err := decoders[topic](value)
		if err != nil {
			if len(value) < 300 {
				reasonOf(t, err)
			}
			return
		}
		first, err := v.(interface{ Encode() ([]byte, error) }).Encode()
		if err != nil {
			t.Fatalf("encoding what was accepted: %v", err)
		}
		if len(value) < 1000 && !hugeExponent(value) && !valid(topic, value) {
			t.Errorf("the schema refuses what the decoder accepts: %s", value)
		}
		again, err := decoders[topic](first)
		if err != nil {
			t.Fatalf("decoding what was encoded: %v\n%s", err, first)
		}
		second, err := again.(interface{ Encode() ([]byte, error) }).Encode()
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("encoded %s, then %s (%v)", first, second, err)
		}
	})
}

// hugeExponent keeps numbers such as 1e-999999999 from the schema's validator, which computes with exact fractions.
func hugeExponent(value []byte) bool {
	run := 0
	for _, c := range value {
		if c >= '0' && c <= '9' {
			if run++; run > 18 {
				return true
			}
			continue
		}
		run = 0
	}
	return bytes.ContainsAny(value, "eE") && bytes.ContainsAny(value, "0123456789") && longExponent(value)
}

func longExponent(value []byte) bool {
	for i, c := range value {
		if c != 'e' && c != 'E' {
			continue
		}
		digits := 0
		for _, d := range bytes.TrimLeft(value[i+1:], "+-0") {
			if d < '0' || d > '9' {
				break
			}
			digits++
		}
		if digits > 3 {
			return true
		}
	}
	return false
}

func jsonMembers(value string) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(value), &m); err != nil {
		panic(err)
	}
	return m
}

func BenchmarkParseFeedback(b *testing.B) {
	value := []byte(with("feedback", "session", `"0b7e9d8c-5d6f-4f0e-9a51"`, "value", "4.5"))
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFeedback(value, recordTime); err != nil {
			b.Fatal(err)
		}
	}
}
