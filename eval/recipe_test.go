package eval

import (
	"strings"
	"testing"
)

func TestSet(t *testing.T) {
	r := DefaultRecipe(16)
	for _, s := range []string{
		"train.pseudo_share=.2", "train.lr_min=1e-5", "prior.hidden=128", "prior.loss.objective=v", "sampler.guidance=2.5",
		"window.newest=40", "runtime.threads=2", "train.idle=3s",
	} {
		if err := r.Set(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if r.Train.PseudoShare != .2 || r.Train.LRMin != 1e-5 || r.Prior.Hidden != 128 || r.Prior.Loss.Objective != "v" || r.Sampler.Guidance != 2.5 ||
		r.Window.Newest != 40 || r.Prior.MaxTokens != 64 || r.Runtime.Threads != 2 || r.Train.Idle.Seconds() != 3 {
		t.Errorf("the recipe is %+v", r)
	}
	for s, want := range map[string]string{
		"train":              "section.name=value",
		"train=1":            "names a section",
		"train.nose=1":       `no "nose" here`,
		"train.steps=many":   "is not a int",
		"train.steps=":       "is not a int",
		"train.steps.x=1":    "nothing below it",
		"train.room=1":       `no "room" here`,
		"train.splice=2":     "train.splice: 2 is not in [0, 1]",
		"prior.heads=7":      "prior.hidden",
		"sampler.steps=2000": "sampler.steps",
	} {
		r := DefaultRecipe(16)
		if err := r.Set(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
}
