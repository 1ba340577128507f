package meter

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	m := New(&out, "importing", 200)
	m.Set(50)
	if out.Len() != 0 {
		t.Fatalf("a line came at once: %q", out.String())
	}
	m.last = m.last.Add(-every)
	m.start = m.start.Add(-time.Second)
	m.Set(100)
	if got := out.String(); !strings.Contains(got, "importing: 100 of 200, 50 %") || !strings.Contains(got, "left") {
		t.Errorf("line is %q", got)
	}
	m.Done()
	if got := out.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "importing: 100 in ") {
		t.Errorf("output is %q", got)
	}
}

func TestUnknownTotal(t *testing.T) {
	var out bytes.Buffer
	m := New(&out, "reading", 0)
	m.last = m.last.Add(-every)
	m.Set(7)
	if got := out.String(); !strings.Contains(got, "reading: 7 (") || strings.Contains(got, " of ") {
		t.Errorf("line is %q", got)
	}
}
