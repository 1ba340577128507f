package online

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"rebeca/prior"
)

// TestFewUsable: few events of the catalogue are a flag and a warning, at once and then every ten minutes, until there are more; the first
// events prove nothing.
func TestFewUsable(t *testing.T) {
	var log bytes.Buffer
	w := newClusters(1, 2, 64)
	tr := newTrainer(DefaultConfig(), smallPrior(), w, w.shop, t.TempDir(), nil, slog.New(slog.NewTextHandler(&log, nil)), nil)
	now := time.Unix(1_700_000_000, 0)
	tr.now = func() time.Time { return now }
	offset := int64(0)
	take := func(n int, item string) {
		for range n {
			tr.take(Example{Offset: offset, UserID: "u", ItemID: item, Class: prior.StrongPositive})
			offset++
		}
	}
	state := func(what string, flag bool, warnings int) {
		t.Helper()
		if got := strings.Count(log.String(), "few events can be learned from"); got != warnings || tr.Status().FewUsable != flag {
			t.Errorf("%s: flag %v, %d warnings; want %v, %d", what, tr.Status().FewUsable, got, flag, warnings)
		}
	}
	take(usableEvents-1, "made")
	state("the first events", false, 0)
	take(300, "made")
	state("nothing is of the catalogue", true, 1)
	now = now.Add(usableEvery - time.Second)
	take(100, "made")
	state("within ten minutes", true, 1)
	now = now.Add(time.Second)
	take(100, "made")
	state("after ten minutes", true, 2)
	var m dto.Metric
	if err := tr.metrics.usable.Write(&m); err != nil {
		t.Fatal(err)
	}
	if got := tr.Status().Usable; got > .01 || m.GetGauge().GetValue() != got {
		t.Errorf("usable %v, metric %v", got, m.GetGauge().GetValue())
	}
	take(400, w.byTaste[0][0])
	state("a third is again", false, 2)
	take(1, "made")
	state("one more", false, 2)
}
