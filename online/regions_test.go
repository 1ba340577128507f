package online

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// rings are four concentric rings: clusters that no ball holds.
func rings(n int) (*shop, map[string]int) {
	s, of := &shop{items: map[string][]float32{}}, map[string]int{}
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range n {
		ring, angle := i%4, 2*math.Pi*rng.Float64()
		radius := float64(1+3*ring) + .1*rng.NormFloat64()
		id := fmt.Sprintf("%05d", i)
		s.add(id, []float32{float32(radius * math.Cos(angle)), float32(radius * math.Sin(angle))})
		of[id] = ring
	}
	return s, of
}

func TestTastesFollowClusters(t *testing.T) {
	s, of := rings(2000)
	r := newCrowd(1, s.Len(), s.Each).regions
	weights := r.weigh()
	if !slices.Equal(weights, newCrowd(1, s.Len(), s.Each).regions.weigh()) {
		t.Fatal("weights are not the same when taken again")
	}
	alone := func(i int) float64 { // of balls, then of partitions
		if i == 0 {
			return weights[0]
		}
		return weights[i] - weights[i-1]
	}
	for i := range crowdPartitions {
		if r.aboutCentres(i) {
			continue
		}
		for _, cell := range r.partition(i) {
			for _, k := range cell {
				if of[r.items[k].id] != of[r.items[cell[0]].id] {
					t.Fatalf("partition %d: a community of items of rings %d and %d", i, of[r.items[k].id], of[r.items[cell[0]].id])
				}
			}
		}
		// Balls of a sixteenth of the items cut the rings everywhere.
		if alone(1+i) < alone(0)/ballsMass {
			t.Errorf("partition %d of communities has weight %.3g, one of balls %.3g", i, alone(1+i), alone(0)/ballsMass)
		}
	}
}

// TestLikesTellWhereTastesLie: what is foretold by others of the same person's
// likes is what people are drawn from.
func TestLikesTellWhereTastesLie(t *testing.T) {
	s := plain(1500)
	r := newCrowd(1, s.Len(), s.Each).regions
	rng := stream(3, streamDraw, 0)
	for _, truth := range []int{2, 5} {
		var people [][]int32
		for range 200 {
			var likes []int32
			cells := [][]int32{kinOf(r, truth).draw(rng), kinOf(r, truth).draw(rng)}
			for range 12 {
				c := cells[rng.IntN(2)]
				likes = append(likes, c[rng.IntN(len(c))])
			}
			people = append(people, likes)
		}
		told := r.evidence(people)
		if best := slices.Index(told, slices.Max(told)); best != 1+truth {
			t.Errorf("people of partition %d: %d is the likeliest of %.1f", truth, best-1, told)
		}
		r.believe(told)
		drawn := 0
		for range 500 {
			if k := r.kin(rng); len(k.cells) > 0 && &k.cells[0] == &r.partition(truth)[0] {
				drawn++
			}
		}
		if drawn < 250 {
			t.Errorf("%d of 500 people are of partition %d, which 200 were of", drawn, truth)
		}
	}
	if told := r.evidence(nil); slices.Max(told) != 0 || slices.Min(told) != 0 {
		t.Errorf("nobody tells %v", told)
	}
}

// TestTwinsHaveTastes: a catalogue of one picture many times over has nothing to tell tastes by, and people all the same.
func TestTwinsHaveTastes(t *testing.T) {
	s := &shop{items: map[string][]float32{}}
	for i := range 300 {
		s.add(fmt.Sprintf("%05d", i), []float32{1, 2})
	}
	c := newCrowd(1, s.Len(), s.Each)
	for i := range crowdPartitions {
		if len(c.regions.partition(i)) == 0 {
			t.Fatalf("partition %d has no cell", i)
		}
	}
	rng := stream(7, streamDraw, 0)
	for range 200 {
		c.life(rng, 8, 4, 4, 4)
	}
}

func kinOf(r *regions, partition int) kin { return kin{regions: r, cells: r.partition(partition)} }
