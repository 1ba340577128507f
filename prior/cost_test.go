package prior

import "testing"

// TestCost holds the published prior against its published size and the hand count of its products: 49.9 million a row as published,
// 45.2 with the maps of queries and outputs of cross-attention applied to its three keys and values.
func TestCost(t *testing.T) {
	cfg := DefaultConfig(1024)
	cfg.Kind, cfg.Users, cfg.MaxTokens, cfg.Contexts, cfg.Targets = kindReference, 210, 1, 64, 1
	cost := cfg.Cost()
	if cost.Parameters != 4_411_174 {
		t.Errorf("%d parameters, published are 4,411,174", cost.Parameters)
	}
	for _, c := range []struct {
		name      string
		got, want float64
	}{{"row", cost.Denoise, 2 * 45.2e6}, {"step", cost.Step, 3 * 64 * 2 * 45.2e6}} {
		if c.got < .98*c.want || c.got > 1.02*c.want {
			t.Errorf("%s: %.4g operations, by hand %.4g", c.name, c.got, c.want)
		}
	}
}
