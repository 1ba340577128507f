package schemas

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const plainEvent = `{"event_id":"e-1","user_id":"u 1","item_id":"i~1","kind":"rating","value":4,"occurred_at":"2026-02-28T23:59:59.120Z"}`

// checkQuick fails when the quick reader accepts what the walk refuses or reads otherwise, and reports whether it accepted.
func checkQuick(t interface{ Errorf(string, ...any) }, value []byte) bool {
	got, ok := quickFeedback(value)
	if !ok {
		return false
	}
	want, err := walkFeedback(value)
	if err != nil {
		t.Errorf("quick accepts %q, the walk says %v", value, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("quick reads %q as\n%+v, the walk as\n%+v", value, got, want)
	}
	return true
}

// What most producers write must take the quick way, or it is there for nothing.
func TestQuickReadsPlainEvents(t *testing.T) {
	for _, text := range []string{
		plainEvent,
		"\t" + strings.ReplaceAll(plainEvent, ",", " ,\r\n ") + " \n",
		strings.Replace(plainEvent, "4", "-0.5e+3", 1),
		strings.Replace(plainEvent, "4", "null", 1),
		strings.Replace(plainEvent, ".120Z", "Z", 1),
		strings.Replace(plainEvent, ".120Z", ".123456789Z", 1),
		strings.Replace(plainEvent, "{", `{"context":{"app":["a",{"b":[]},{}],"ok":true,"no":false,"n":null,"x":1.5E-7},`, 1),
		strings.Replace(plainEvent, "{", `{"user_id":"another","value":2,`, 1), // of equal names the last counts
	} {
		if !checkQuick(t, []byte(text)) {
			t.Errorf("quick gave up on %s", text)
		}
	}
}

// What is not plain is for the walk to judge.
func TestQuickGivesUp(t *testing.T) {
	edits := [][2]string{
		{"e-1", `e\u0031`}, {"e-1", "é"}, {"e-1", "a\x7f"}, {"e-1", "a\x01"}, {`"e-1"`, "7"}, {`"kind":"rating"`, `"kind":"adore"`}, {`"rating"`, "null"},
		{":4", ":04"}, {":4", ":4."}, {":4", ":.4"}, {":4", ":-"}, {":4", ":4e"}, {":4", ":+4"}, {":4", ":1e999"}, {":4", `:"4"`}, {":4", ":tru"}, {":4", ":nul"},
		{"02-28", "02-29"}, {"02-28", "00-28"}, {"02-28", "13-01"}, {"T23", "T24"}, {":59:", ":60:"}, {"59.", "60."}, {".120Z", ".Z"}, {".120Z", ",120Z"},
		{".120Z", "+01:00"}, {".120Z", ".1234567890Z"}, {"2026", "202x"}, {"T", "t"}, {"Z\"", "z\""}, {"}", ",}"}, {"}", "}x"}, {"}", ""}, {"{", "{,"}, {",", ",,"},
		{"{", `{"a":[1,],`}, {"{", `{"a":[1 2],`}, {"{", `{"a":{"b"},`}, {"{", `{"a":{"b":1,},`}, {"{", `{"a":[}],`}, {"{", `{"a":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + ","},
	}
	for _, e := range edits {
		if text := strings.Replace(plainEvent, e[0], e[1], 1); checkQuick(t, []byte(text)) {
			t.Errorf("quick took %s", text)
		}
	}
	for cut := range len(plainEvent) {
		if checkQuick(t, []byte(plainEvent[:cut])) {
			t.Errorf("quick took %s", plainEvent[:cut])
		}
	}
}

// Bytes of plain events put anywhere: whatever quick takes, it takes as the walk does.
func TestQuickAgreesWithTheWalk(t *testing.T) {
	alphabet := []string{`"`, `{`, `}`, `[`, `]`, `,`, `:`, `\`, "-", ".", "e", "0", "1", "9", " ", "null", "true", "Z", "T", `"value"`, `"user_id":"u"`, `"x":`, "é", "\x00"}
	rapid.Check(t, func(t *rapid.T) {
		text := plainEvent
		for range rapid.IntRange(0, 3).Draw(t, "edits") {
			at := rapid.IntRange(0, len(text)).Draw(t, "at")
			end := min(len(text), at+rapid.IntRange(0, 3).Draw(t, "cut"))
			text = text[:at] + rapid.SampledFrom(alphabet).Draw(t, "piece") + text[end:]
		}
		checkQuick(t, []byte(text))
	})
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
		at := fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:%02d", n("year", 0, 9999), n("month", 0, 13), n("day", 0, 32), n("hour", 0, 24), n("minute", 0, 60), n("second", 0, 60))
		if digits := n("digits", 0, 10); digits > 0 {
			at += "." + fmt.Sprintf("%010d", n("fraction", 0, 1<<31))[:digits]
		}
		checkQuick(t, []byte(strings.Replace(plainEvent, "2026-02-28T23:59:59.120", at, 1)))
	})
}

func FuzzQuickFeedback(f *testing.F) {
	f.Add([]byte(plainEvent))
	f.Add([]byte(strings.Replace(plainEvent, "{", `{"a":{"b":[1,-2.5e3,true,null,"x"]},`, 1)))
	f.Fuzz(func(t *testing.T, value []byte) { checkQuick(t, value) })
}

func BenchmarkDecodeFeedback(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"plain", plainEvent}, {"escaped", strings.Replace(plainEvent, "i~1", `i\u007e1`, 1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeFeedback([]byte("u 1"), []byte(c.text), time.Time{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
