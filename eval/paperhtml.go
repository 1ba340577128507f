package eval

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"image"
	"image/png"
	"io"
	"math"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"

	"rebeca/eval/shapes"
	"rebeca/sampler"
)

//go:embed paper.html
var paperPage string

// portrait is what one person liked and what was made for them.
type portrait struct {
	Favourite string
	Rows      []strip
}

// strip is a row of pictures.
type strip struct {
	Title    string
	Pictures []picture
}

type picture struct {
	Data  template.URL
	Title string
	Miss  bool // it shows something else than the favourite
}

// dots are embeddings on the two axes of the projection.
type dots struct {
	title string
	class string
	at    [][2]float64
}

const (
	pictured  = 12  // pictures of a row
	projected = 250 // samples of a person on the map
	mapped    = 2500
)

// illustrate decodes pictures and projects embeddings for [PaperReport.HTML].
func (x *experiment) illustrate(ctx context.Context) error {
	dec, err := sampler.OpenDecoder(shapes.Codec(), "manifest.json", x.rebeca.recipe.Runtime)
	if err != nil {
		return fmt.Errorf("opening the decoder: %w", err)
	}
	defer dec.Close()
	project, err := x.projection()
	if err != nil {
		return err
	}
	for cell, of := range x.world.ItemsOf {
		d := dots{title: "items: " + x.preset.Tastes[cell].String(), class: fmt.Sprint("item t", cell)}
		for _, i := range of[:min(len(of), mapped/len(x.world.ItemsOf))] {
			d.at = append(d.at, project(x.world.Items[i]))
		}
		x.report.maps = append(x.report.maps, d)
	}
	givers := x.givers(ctx)[:2]
	for p := range x.world.People {
		favourite := x.favourite(p).String()
		person := portrait{Favourite: favourite}
		rng := random(x.o.Seed^hash("portrait"), useTruth, p)
		likes := x.likes(p, true, false)
		var liked [][]float32
		for range pictured {
			liked = append(liked, x.world.Items[likes[rng.IntN(len(likes))]])
		}
		if err := x.strip(ctx, &person, p, dec, "liked", liked); err != nil {
			return err
		}
		for gi, g := range givers {
			samples, err := g.give(p, projected, rng)
			if err != nil {
				return err
			}
			title := []string{"made, guidance 1", "made, as shipped"}[gi]
			if err := x.strip(ctx, &person, p, dec, title, samples[:pictured]); err != nil {
				return err
			}
			if gi == 0 {
				d := dots{title: "made for who likes " + favourite + "s", class: fmt.Sprint("made u", p)}
				for _, s := range samples {
					d.at = append(d.at, project(s))
				}
				x.report.maps = append(x.report.maps, d)
			}
		}
		x.report.gallery = append(x.report.gallery, person)
	}
	return nil
}

func (x *experiment) strip(ctx context.Context, to *portrait, p int, dec *sampler.Decoder, title string, embeddings [][]float32) error {
	images, err := dec.Decode(ctx, embeddings, nil, nil)
	if err != nil {
		return fmt.Errorf("decoding pictures: %w", err)
	}
	tastes := x.judge.Tastes(embeddings)
	s := strip{Title: title}
	for i, img := range images {
		data, err := dataURI(img)
		if err != nil {
			return err
		}
		s.Pictures = append(s.Pictures, picture{data, tastes[i].String(), tastes[i] != x.favourite(p)})
	}
	to.Rows = append(to.Rows, s)
	return nil
}

func dataURI(img image.Image) (template.URL, error) {
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestCompression}
	if err := e.Encode(&b, img); err != nil {
		return "", fmt.Errorf("encoding a picture: %w", err)
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())), nil
}

// projection is onto the first two principal components of the means of the four cells: the plane in which tastes lie apart. Those of
// all items show how pictures of one taste differ instead.
func (x *experiment) projection() (func(e []float32) [2]float64, error) {
	dim := x.world.Dim
	means, centre := mat.NewDense(len(x.world.ItemsOf), dim, nil), make([]float64, dim)
	for cell, of := range x.world.ItemsOf {
		row := means.RawRowView(cell)
		for _, i := range of {
			for d, v := range x.world.Items[i] {
				row[d] += float64(v) / float64(len(of))
			}
		}
		for d, v := range row {
			centre[d] += v / float64(len(x.world.ItemsOf))
		}
	}
	var pc stat.PC
	if !pc.PrincipalComponents(means, nil) {
		return nil, errors.New("the means of the four tastes have no principal components")
	}
	var v mat.Dense
	pc.VectorsTo(&v)
	return func(e []float32) (at [2]float64) {
		for d, y := range e {
			for k := range at {
				at[k] += (float64(y) - centre[d]) * v.At(d, k)
			}
		}
		return at
	}, nil
}

// plot is the map as drawn, in units of its view box.
type plot struct {
	Width, Height int
	Layers        []layer
}

type layer struct {
	Title, Class string
	Dots         []string // x,y
}

func (r *PaperReport) plot() plot {
	const width, height, margin = 900, 560, 16
	low, high := [2]float64{math.Inf(1), math.Inf(1)}, [2]float64{math.Inf(-1), math.Inf(-1)}
	for _, m := range r.maps {
		for _, at := range m.at {
			for k, v := range at {
				low[k], high[k] = min(low[k], v), max(high[k], v)
			}
		}
	}
	p := plot{Width: width, Height: height}
	for _, m := range r.maps {
		l := layer{Title: m.title, Class: m.class}
		for _, at := range m.at {
			x := margin + (at[0]-low[0])/(high[0]-low[0])*(width-2*margin)
			y := height - margin - (at[1]-low[1])/(high[1]-low[1])*(height-2*margin)
			l.Dots = append(l.Dots, fmt.Sprintf("M%.1f %.1fh0", x, y))
		}
		p.Layers = append(p.Layers, l)
	}
	return p
}

// sheetLine is a row of the page's tables.
type sheetLine struct {
	Name  string
	Class string
	Cells []string
}

type sheet struct {
	Title   string
	Note    string
	Columns []string
	Lines   []sheetLine
}

// sheets are the page's tables.
func (r *PaperReport) sheets() (out []sheet) {
	var ks []string
	for _, k := range paperKs {
		ks = append(ks, fmt.Sprintf("P at %d", k))
	}
	for _, k := range paperKs {
		ks = append(ks, fmt.Sprintf("R at %d", k))
	}
	both := func(figure func(k int) (float64, float64)) (cells []string) {
		for k := range paperKs {
			p, _ := figure(k)
			cells = append(cells, fmt.Sprintf("%.3f", p))
		}
		for k := range paperKs {
			_, recall := figure(k)
			cells = append(cells, fmt.Sprintf("%.4f", recall))
		}
		return cells
	}
	protocol := func(title, note string, rows []PaperRow, published func(k int) (float64, float64)) sheet {
		s := sheet{Title: title, Note: note, Columns: ks}
		for _, name := range r.names() {
			s.Lines = append(s.Lines, sheetLine{name[1], name[0], both(func(k int) (float64, float64) {
				row := r.row(rows, name[0], -1, paperKs[k])
				return row.P, row.R
			})})
		}
		s.Lines = append(s.Lines, sheetLine{"published", "published", both(published)})
		return s
	}
	out = append(out,
		protocol("Protocol A", fmt.Sprintf("k samples, of each the nearest of the person's test rows by cosine, duplicates once; means over four people and %d repetitions.", r.Repetitions),
			r.A, func(k int) (float64, float64) { return r.Published.A[k], r.Published.AR[k] }),
		protocol("Protocol B", fmt.Sprintf("%d samples, the union of the k nearest of all %d items of each; means over four people.", r.Samples, r.Items),
			r.B, r.Published.meanB))
	w := sheet{Title: "W2²", Note: "Squared Wasserstein distance to all likes of the person, exact, and over its floor: what as many real likes score.", Columns: nil}
	for _, p := range r.People {
		w.Columns = append(w.Columns, p.Favourite)
	}
	w.Columns = append(w.Columns, "mean")
	for _, name := range r.names() {
		l := sheetLine{Name: name[1], Class: name[0]}
		for p := range len(r.People) + 1 {
			if p == len(r.People) {
				p = -1
			}
			if d := r.distance(name[0], p); d.W2 > 0 {
				l.Cells = append(l.Cells, fmt.Sprintf("%.3f (%.2f×)", d.W2, d.Ratio))
			} else {
				l.Cells = append(l.Cells, "–")
			}
		}
		w.Lines = append(w.Lines, l)
	}
	l, sum, ratio := sheetLine{Name: "published, in its own space", Class: "published"}, 0., 0.
	for p, w2 := range r.Published.W2 {
		sum, ratio = sum+w2/4, ratio+w2/r.Published.Floor[p]/4
		l.Cells = append(l.Cells, fmt.Sprintf("%.3f (%.2f×)", w2, w2/r.Published.Floor[p]))
	}
	l.Cells = append(l.Cells, fmt.Sprintf("%.3f (%.2f×)", sum, ratio))
	w.Lines = append(w.Lines, l)
	return append(out, w)
}

// HTML writes the report as one page that needs nothing else: pictures are inside it.
func (r *PaperReport) HTML(w io.Writer) error {
	t, err := template.New("paper").Funcs(template.FuncMap{
		"thousands": func(n int) string {
			s := fmt.Sprint(n)
			for i := len(s) - 3; i > 0; i -= 3 {
				s = s[:i] + "," + s[i:]
			}
			return s
		},
	}).Parse(paperPage)
	if err != nil {
		panic("eval: " + err.Error()) // the page is part of the program
	}
	if err := t.Execute(w, map[string]any{"R": r, "Gallery": r.gallery, "Plot": r.plot(), "Sheets": r.sheets()}); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}
