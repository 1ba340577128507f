package sampler

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"rebeca/schemas"
)

const goodDrawing = `{"format":1,"name":"sd","dim":1024,"stable_diffusion":{"kind":"sd15-ip-adapter","width":512,"height":512,
 "latent":[4,64,64],"text":[77,768],"tokens":[4,768],"guidance":5,"image_scale":1,
 "scheduler":{"kind":"pndm","steps":50,"timesteps":1000,"beta_schedule":"scaled_linear","beta_start":0.00085,"beta_end":0.012,
  "spacing":"leading","steps_offset":1,"final_alpha_one":false},
 "files":{"image_projection":"p.onnx","unet":"u.onnx","vae_decoder":"v.onnx","text_states":"t.f32","safety_checker":"s.onnx"}}}`

var codecSchema = sync.OnceValue(func() *jsonschema.Schema {
	text, err := schemas.Files.ReadFile("codec.schema.json")
	if err != nil {
		panic(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("codec.schema.json", doc); err != nil {
		panic(err)
	}
	return c.MustCompile("codec.schema.json")
})

func fitsSchema(manifest []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(manifest))
	if err != nil {
		return err
	}
	return codecSchema().Validate(doc)
}

// TestDrawingManifest holds the shipped JSON Schema and the reader of manifests against each other.
func TestDrawingManifest(t *testing.T) {
	for _, tc := range []struct {
		from, to, want string // want is empty for what is accepted
		schemaSilent   bool
	}{
		{},
		{from: `"guidance":5,`},
		{from: `,"safety_checker":"s.onnx"`},
		{from: `"text_states":"t.f32"`, to: `"text_encoder":"t.onnx"`, want: "prompt: 0 token ids where the text encoder takes 77"},
		{from: `"kind":"sd15-ip-adapter"`, to: `"kind":"sdxl"`, want: `stable_diffusion.kind: "sdxl" is unknown, sd15-ip-adapter is read`},
		{from: `"kind":"pndm"`, to: `"kind":"euler"`, want: `stable_diffusion.scheduler.kind: "euler" is not one of pndm, ddim, dpm++2m`},
		{from: `"spacing":"leading"`, to: `"spacing":"even"`, want: `stable_diffusion.scheduler.spacing: "even" is not one of`},
		{from: `"beta_schedule":"scaled_linear"`, to: `"beta_schedule":"cosine"`, want: `scheduler.beta_schedule: "cosine"`},
		{from: `"beta_start":0.00085`, to: `"beta_start":0`, want: "scheduler.beta_start: 0"},
		{from: `"beta_end":0.012`, to: `"beta_end":0.0001`, want: "scheduler.beta_end: 0.0001", schemaSilent: true},
		{from: `"steps":50`, to: `"steps":0`, want: "scheduler.steps: 0"},
		{from: `"steps":50`, to: `"steps":1000`, want: "scheduler.steps: 1000 of them reach timestep 1000", schemaSilent: true},
		{from: `"steps":50`, to: `"steps":1001`, want: "scheduler.steps: 1001", schemaSilent: true},
		{from: `"kind":"pndm","steps":50`, to: `"kind":"dpm++2m","steps":1000`, want: "are too many for dpm++2m", schemaSilent: true},
		{from: `"timesteps":1000`, to: `"timesteps":1`, want: "scheduler.timesteps: 1 "},
		{from: `"steps_offset":1`, to: `"steps_offset":-1`, want: "scheduler.steps_offset: -1"},
		{from: `"guidance":5`, to: `"guidance":-1`, want: "stable_diffusion.guidance: -1"},
		{from: `"image_scale":1`, to: `"image_scale":-1`, want: "stable_diffusion.image_scale: -1"},
		{from: `"width":512`, to: `"width":5000`, want: "stable_diffusion.width: 5000 is not within 1 to 2048"},
		{from: `"latent":[4,64,64]`, to: `"latent":[4,64,0]`, want: "stable_diffusion.latent[2]: 0"},
		{from: `"tokens":[4,768]`, to: `"tokens":[4,1280]`, want: "stable_diffusion.tokens[1]: 1280, and the text's states have 768", schemaSilent: true},
		{from: `"unet":"u.onnx"`, to: `"unet":"../u.onnx"`, want: `stable_diffusion.files.unet: "../u.onnx" is not a relative`},
		{from: `"unet":"u.onnx",`, want: `stable_diffusion.files.unet: "" is not a relative`},
		{from: `"text_states":"t.f32",`, want: "stable_diffusion.files.text_states, text_encoder: one of the two is needed"},
		{from: `"text_states"`, to: `"text_encoder":"e.onnx","text_states"`, want: "files.text_states, text_encoder: one of the two is needed"},
		{from: `"vae_decoder"`, to: `"vae_encoder"`, want: `unknown field "vae_encoder"`},
		{from: `"dim":1024,`, to: `"dim":1024,"decoder":{"file":"d.onnx","input":"z","output":"i","layout":"NCHW","range":[0,1],"width":8,"height":8,"batch":1},`,
			want: "decoder, stable_diffusion: both are given, one decodes"},
	} {
		if tc.from != "" && !strings.Contains(goodDrawing, tc.from) {
			t.Fatalf("%q is not in the manifest", tc.from)
		}
		data := []byte(strings.Replace(goodDrawing, tc.from, tc.to, 1))
		_, err := DecodeManifest(data)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: error %v, want %q", tc.to, err, tc.want)
		}
		if err := fitsSchema(data); (err == nil) != (tc.want == "" || tc.schemaSilent) {
			t.Errorf("%s: the schema says %v, and the reader %q", tc.to, err, tc.want)
		}
	}
}

// TestShippedManifestsFitTheSchema: those that tools write.
func TestShippedManifestsFitTheSchema(t *testing.T) {
	for _, file := range []string{"../eval/shapes/model/manifest.json", "stablediffusion/testdata/tiny/manifest.json"} {
		data, err := os.ReadFile(file)
		if err == nil {
			_, err = DecodeManifest(data)
		}
		if err == nil {
			err = fitsSchema(data)
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
