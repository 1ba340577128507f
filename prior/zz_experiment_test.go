package prior

import (
	"fmt"
	"os"
	"testing"
	"time"

	"rebeca/internal/ort"
)

func TestExperiment(t *testing.T) {
	if os.Getenv("EXPERIMENT") == "" {
		t.SkipNow()
	}
	cfg := DefaultConfig(16)
	world := newToyWorld(3, 24, cfg.Dim, 3, .5)
	state, _ := NewState(cfg, world.stats(), 5)
	l, err := NewLearner(state, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rng := newRand(7)
	start := time.Now()
	for i := 1; i <= 1200; i++ {
		lr := 1e-3 * min(1, float64(i)/50)
		s, err := l.Step(world.batch(cfg), lr, rng)
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 25, 50, 100, 200, 400, 800, 1200:
			with, without := world.heldOutLoss(t, l)
			share, chance := world.likedShare(t, l)
			fmt.Printf("%5d loss %.3f norm %.3f  with %.4f without %.4f share %.3f chance %.3f %v\n", i, s.Loss, s.GradNorm, with, without, share, chance, time.Since(start))
		}
	}
}
