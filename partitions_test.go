package rebeca

import (
	"slices"
	"testing"
)

func TestParsePartitions(t *testing.T) {
	for text, want := range map[string]Partitions{"": nil, "0-3": {0, 1, 2, 3}, "5-7, 0,2": {0, 2, 5, 6, 7}, "9": {9}} {
		got, err := ParsePartitions(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
		if again, err := ParsePartitions(got.String()); err != nil || !slices.Equal(again, want) {
			t.Errorf("%q is written as %q", text, got)
		}
	}
	for _, bad := range []string{"-", "3-1", "a", "1,1", "0-2,2", "-1", "0-", "10000", "1,,2"} {
		if got, err := ParsePartitions(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, got)
		}
	}
}

func FuzzParsePartitions(f *testing.F) {
	f.Add("0,2,5-7")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := ParsePartitions(text)
		if err != nil {
			return
		}
		if again, err := ParsePartitions(set.String()); err != nil || !slices.Equal(again, set) {
			t.Errorf("%q: %v, %v", text, again, err)
		}
	})
}

// TestDividedMeansWorker holds the default role where the work is divided.
func TestDividedMeansWorker(t *testing.T) {
	for file, roles := range map[string]int{"testdata/divided.good.yaml": 1, "testdata/small.good.yaml": 2} {
		c, err := LoadConfig(file)
		if err != nil || len(c.Roles) != roles || c.Roles[0] != RoleWorker {
			t.Errorf("%s: roles %v, %v", file, c.Roles, err)
		}
	}
}
