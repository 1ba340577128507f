package stablediffusion

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"rebeca/internal/ort"
)

const (
	// pixelTolerance is of values in 0..1. Both sides compute in float32.
	pixelTolerance = 1e-3
	// concernTolerance is of scores in thousandths: what one grey level in the preprocessing may move them by.
	concernTolerance = 2
)

// reference is what diffusers made of one embedding and noise; see tools/stable_diffusion.py.
type reference struct {
	Name       string    `json:"name"`
	Scheduler  Scheduler `json:"scheduler"`
	Guidance   float64   `json:"guidance"`
	ImageScale float64   `json:"image_scale"`
	Embedding  []float32 `json:"embedding"`
	Noise      []float32 `json:"noise"`
	Image      []float32 `json:"image"`    // [3, height, width] in 0..1
	Concern    float32   `json:"concern"`  // the safety checker's score, in thousandths
	Withheld   bool      `json:"withheld"` // what the safety checker says to the pipeline
}

type references struct {
	TextStates []float32   `json:"text_states"`
	Cases      []reference `json:"cases"`
}

func readReferences(t testing.TB, folder string) references {
	t.Helper()
	var out references
	readJSON(t, filepath.Join(folder, "references.json"), &out)
	return out
}

func readJSON(t testing.TB, file string, to any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readConfig reads the manifest of a folder of fixtures.
func readConfig(t testing.TB, folder string) (c Config, dim int) {
	t.Helper()
	var m struct {
		Dim             int    `json:"dim"`
		StableDiffusion Config `json:"stable_diffusion"`
	}
	readJSON(t, filepath.Join(folder, "manifest.json"), &m)
	if err := m.StableDiffusion.Validate(); err != nil {
		t.Fatal(err)
	}
	return m.StableDiffusion, m.Dim
}

func openPipeline(t testing.TB, fsys fs.FS, c Config, dim int) *Pipeline {
	t.Helper()
	p, err := Open(fsys, ".", c, dim, ort.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// with is the pipeline under the settings of a reference.
func (p *Pipeline) with(r reference) *Pipeline {
	out := *p
	out.config.Scheduler, out.config.Guidance, out.config.ImageScale = r.Scheduler, r.Guidance, r.ImageScale
	return &out
}

// TestDiffusersParity holds the whole pipeline against the pictures that diffusers made with the same tiny random weights.
func TestDiffusersParity(t *testing.T) { checkParity(t, filepath.Join("testdata", "tiny")) }

func checkParity(t *testing.T, folder string) {
	c, dim := readConfig(t, folder)
	p := openPipeline(t, ort.Folder(folder), c, dim)
	refs := readReferences(t, folder)
	if worst := distance(p.text.Data(), refs.TextStates); worst > 1e-4 {
		t.Errorf("the text encoder's states differ by %v", worst)
	}
	kinds, said := map[string]int{}, map[bool]int{}
	for _, r := range refs.Cases {
		t.Run(r.Name, func(t *testing.T) {
			kinds[r.Scheduler.Kind]++
			said[r.Withheld]++
			if err := r.Scheduler.validate(); err != nil {
				t.Fatal(err)
			}
			values, concern, err := p.with(r).draw(t.Context(), r.Embedding, r.Noise, nil)
			if err != nil {
				t.Fatal(err)
			}
			worst := distance(unit(values), r.Image)
			t.Logf("pixels differ by %.2g, the concern by %.2g", worst, concern-r.Concern)
			if worst > pixelTolerance {
				t.Errorf("pixels differ by %v", worst)
			}
			if math.Abs(float64(concern-r.Concern)) > concernTolerance {
				t.Errorf("concern %v, want %v", concern, r.Concern)
			}
			if (concern > 0) != r.Withheld {
				t.Errorf("withheld %v, want %v", concern > 0, r.Withheld)
			}
		})
	}
	// Pictures of the real size are few, and nobody checks them.
	if few := c.Files.SafetyChecker == ""; !few && (kinds[pndm] == 0 || kinds[ddim] == 0 || kinds[dpm] == 0 || said[true] == 0 || said[false] == 0) {
		t.Errorf("the references hold %v and are withheld %v", kinds, said)
	}
}

// unit maps values of the VAE to 0..1, as diffusers does.
func unit(values []float32) []float32 {
	out := make([]float32, len(values))
	for i, v := range values {
		out[i] = min(max(v/2+.5, 0), 1)
	}
	return out
}

// distance is the largest, infinite where lengths or finiteness differ.
func distance(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	worst := 0.
	for i := range a {
		d := math.Abs(float64(a[i]) - float64(b[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		worst = max(worst, d)
	}
	return worst
}
