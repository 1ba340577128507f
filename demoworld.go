package rebeca

import (
	"context"
	"fmt"
	"image"
	"math/rand/v2"
	"sync"

	"rebeca/eval/shapes"
	"rebeca/sampler"
	"rebeca/web"
)

// demoWorld is the controlled world as the gallery sees it. Its judge exists
// once the catalogue is encoded.
type demoWorld struct {
	*shapes.World
	tracker *tracker
	people  map[string]int // index into People by id
	items   map[string]int // index into Items by id
	base    float64

	mu    sync.Mutex
	judge *shapes.Judge     // guarded by mu; nil before the catalogue is encoded
	pngs  map[string][]byte // guarded by mu; drawn when first asked for
}

func newDemoWorld(p shapes.Preset, seed uint64, t *tracker) (*demoWorld, error) {
	w, err := shapes.NewWorld(p, seed)
	if err != nil {
		return nil, fmt.Errorf("making the world: %w", err)
	}
	d := &demoWorld{
		World: w, tracker: t, base: w.BaseRate(),
		people: map[string]int{}, items: map[string]int{}, pngs: map[string][]byte{},
	}
	for i, p := range w.People {
		d.people[p.ID] = i
	}
	for i, it := range w.Items {
		d.items[it.ID] = i
	}
	t.judge = d.judgeAll
	return d, nil
}

// encode draws and encodes the catalogue, and makes the judge of it.
func (d *demoWorld) encode(ctx context.Context, enc *sampler.Encoder) ([][]float32, error) {
	const batch = 64
	embeddings := make([][]float32, 0, len(d.Items))
	for at := 0; at < len(d.Items); at += batch {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		some := d.Items[at:min(at+batch, len(d.Items))]
		images := make([]image.Image, len(some))
		for i, item := range some {
			images[i] = item.Image()
		}
		e, err := enc.Encode(images)
		if err != nil {
			return nil, fmt.Errorf("encoding the catalogue: %w", err)
		}
		embeddings = append(embeddings, e...)
	}
	j, err := shapes.NewJudge(embeddings, d.Tastes())
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.judge = j
	d.mu.Unlock()
	return embeddings, nil
}

// judgeAll says of each embedding whether its person truly likes it.
func (d *demoWorld) judgeAll(users []string, embeddings [][]float32) (tastes []shapes.Taste, likes []bool) {
	d.mu.Lock()
	j := d.judge
	d.mu.Unlock()
	likes = make([]bool, len(users))
	if j == nil {
		return make([]shapes.Taste, len(users)), likes
	}
	tastes = j.Tastes(embeddings)
	for i, u := range users {
		if p, ok := d.people[u]; ok {
			likes[i] = d.People[p].Likes(tastes[i])
		}
	}
	return tastes, likes
}

// Person implements [web.World].
func (d *demoWorld) Person(userID string) (web.Person, bool) {
	i, ok := d.people[userID]
	if !ok {
		return web.Person{}, false
	}
	return web.Person{UserID: userID, Caption: shapes.Caption(d.People[i].Tastes)}, true
}

// Judge implements [web.World].
func (d *demoWorld) Judge(userID string, embedding []float32) (likes, ok bool) {
	if _, ok := d.people[userID]; !ok {
		return false, false
	}
	_, l := d.judgeAll([]string{userID}, [][]float32{embedding})
	return l[0], true
}

// Item implements [web.Pictures].
func (d *demoWorld) Item(itemID string) ([]byte, bool) {
	i, ok := d.items[itemID]
	if !ok {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if png, ok := d.pngs[itemID]; ok {
		return png, true
	}
	png, err := sampler.PNG(d.Items[i].Image())
	if err != nil {
		panic("rebeca: a drawn picture is not a picture: " + err.Error())
	}
	d.pngs[itemID] = png
	return png, true
}

// Explore implements [web.Explorer]: pictures of as many different tastes as
// there are.
func (d *demoWorld) Explore(n int, seed uint64) []web.ItemPicture {
	rng := rand.New(rand.NewPCG(seed, 0x6578706c))
	tastes := d.Preset.Tastes
	out := make([]web.ItemPicture, 0, n)
	for len(out) < n {
		for _, t := range rng.Perm(len(tastes)) {
			if len(out) == n {
				break
			}
			perTaste := (len(d.Items) - t + len(tastes) - 1) / len(tastes)
			item := d.Items[t+len(tastes)*rng.IntN(perTaste)]
			png, _ := d.Item(item.ID)
			out = append(out, web.ItemPicture{ItemID: item.ID, PNG: png})
		}
	}
	return out
}

// Shares implements [Truth].
func (d *demoWorld) Shares() (liked, base *float64) { return d.tracker.recentShare(), &d.base }
