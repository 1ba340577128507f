package online

import (
	"math"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"steps:":          func(c *Config) { c.Steps = 0 },
		"round:":          func(c *Config) { c.Round = -1 },
		"splice: 1.5":     func(c *Config) { c.Splice = 1.5 },
		"splice: NaN":     func(c *Config) { c.Splice = math.NaN() },
		"lr: 0":           func(c *Config) { c.LR = 0 },
		"lr: NaN":         func(c *Config) { c.LR = math.NaN() },
		"lr_min:":         func(c *Config) { c.LRMin = 2 },
		"window_dropout:": func(c *Config) { c.WindowDropout = .1 },
		"warmup:":         func(c *Config) { c.Warmup = -1 },
		"keep: 1":         func(c *Config) { c.Keep = 1 },
		"held_out:":       func(c *Config) { c.HeldOut = -1 },
		"idle:":           func(c *Config) { c.Idle = 0 },
		"cpu_share: 2":    func(c *Config) { c.CPUShare = 2 },
		"max_lag:":        func(c *Config) { c.MaxLag = 0 },
		"announce_every:": func(c *Config) { c.AnnounceEvery = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("expected an error of %q, got %v", want, err)
		}
	}
}
