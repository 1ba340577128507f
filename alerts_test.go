package rebeca_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// alarmFaults are what is wrong with the alarms of a page, metrics being the lines of testdata/metrics.txt, which TestMetrics holds
// against what is registered: a metric or label that is not there, a histogram without its suffix, an alarm without a query or advice.
func alarmFaults(page, metrics string) (faults []string) {
	known, labels := map[string]string{}, map[string][]string{}
	for _, line := range strings.Split(metrics, "\n") {
		if f := strings.Fields(line); len(f) >= 2 && f[0] != "#" {
			known[f[1]], labels[f[1]] = f[0], f[2:]
		}
	}
	sections := regexp.MustCompile(`(?m)^### `).Split(page, -1)[1:]
	if len(sections) == 0 {
		return []string{"no alarm"}
	}
	query := regexp.MustCompile("(?s)```promql\n(.*?)```")
	name := regexp.MustCompile(`rebeca_[a-z_]+`)
	by := regexp.MustCompile(`by \(([a-z_]+)\)`)
	for _, s := range sections {
		title, _, _ := strings.Cut(s, "\n")
		queries := query.FindAllStringSubmatch(s, -1)
		if len(queries) == 0 {
			faults = append(faults, title+": no query")
		}
		prose, _, _ := strings.Cut(query.ReplaceAllString(s[len(title):], ""), "\n## ")
		if len(strings.TrimSpace(prose)) < 40 {
			faults = append(faults, title+": nothing to do")
		}
		for _, n := range name.FindAllString(s, -1) {
			plain := n
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if trimmed, ok := strings.CutSuffix(n, suffix); ok && known[trimmed] == "histogram" {
					plain = trimmed
				}
			}
			switch kind := known[plain]; {
			case kind == "":
				faults = append(faults, title+": no metric "+n)
			case kind == "histogram" && plain == n:
				faults = append(faults, title+": "+n+" is a histogram")
			}
		}
		for _, q := range queries {
			for _, b := range by.FindAllStringSubmatch(q[1], -1) {
				all := " le "
				for _, n := range name.FindAllString(q[1], -1) {
					all += strings.Join(labels[n], " ") + " "
				}
				if !strings.Contains(all, " "+b[1]+" ") {
					faults = append(faults, title+": no label "+b[1])
				}
			}
			if strings.Count(q[1], "(") != strings.Count(q[1], ")") {
				faults = append(faults, title+": brackets")
			}
		}
	}
	return faults
}

func TestAlarmsAreOfMetrics(t *testing.T) {
	page, err := os.ReadFile("docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range alarmFaults(string(page), string(metrics)) {
		t.Error(f)
	}
	todo := "\n\nDo what has to be done about it, and do not wait for long.\n"
	for q, want := range map[string]string{
		"rebeca_moon > 1": "no metric", "rebeca_event_to_image_seconds > 1": "is a histogram", "sum by (moon) (rebeca_deadletters_total)": "no label",
		"rate(rebeca_train_events_total[1h]": "brackets",
	} {
		if got := alarmFaults("### X\n```promql\n"+q+"\n```"+todo, string(metrics)); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q, want %q", q, got, want)
		}
	}
	for page, want := range map[string]string{"### X" + todo: "no query", "### X\n```promql\nrebeca_disk_paused > 0\n```\n": "nothing to do", "": "no alarm"} {
		if got := alarmFaults(page, string(metrics)); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%q: %q, want %q", page, got, want)
		}
	}
}
