package sampler

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const goodManifest = `{"format":1,"name":"shapes","dim":16,
 "decoder":{"file":"decoder.onnx","input":"z","output":"image","layout":"NCHW","range":[0,1],"width":64,"height":64,"batch":8},
 "encoder":{"file":"encoder.onnx","input":"image","output":"mu","layout":"NCHW","range":[0,1],"width":64,"height":64,"batch":8}}`

func TestDecodeManifest(t *testing.T) {
	m, err := DecodeManifest([]byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	want := Manifest{Format: 1, Name: "shapes", Dim: 16,
		Decoder: &Part{File: "decoder.onnx", Input: "z", Output: "image", Layout: "NCHW", Range: [2]float64{0, 1}, Width: 64, Height: 64, Batch: 8},
		Encoder: &Part{File: "encoder.onnx", Input: "image", Output: "mu", Layout: "NCHW", Range: [2]float64{0, 1}, Width: 64, Height: 64, Batch: 8}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("manifest %+v, want %+v", m, want)
	}
}

func TestDecodeManifestRefuses(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{`"format":1`, `"format":2`, "format: 2, this version reads 1"},
		{`"format":1,`, ``, "format: 0"},
		{`"name":"shapes"`, `"name":""`, "name: missing"},
		{`"dim":16`, `"dim":0`, "dim: 0"},
		{`"dim":16`, `"dim":"16"`, "dim"},
		{`"dim":16`, `"dims":16`, `unknown field "dims"`},
		{`"file":"decoder.onnx"`, `"file":"../decoder.onnx"`, `decoder.file: "../decoder.onnx"`},
		{`"file":"decoder.onnx"`, `"file":""`, `decoder.file: ""`},
		{`"input":"z"`, `"input":""`, "decoder.input: missing"},
		{`"output":"mu"`, `"output":""`, "encoder.output: missing"},
		{`"output":"mu","layout":"NCHW"`, `"output":"mu","layout":"NHWC"`, `encoder.layout: "NHWC" is unknown, NCHW is read`},
		{`"range":[0,1]`, `"range":[1,1]`, "decoder.range: [1 1] does not rise"},
		{`"width":64`, `"width":0`, "decoder.width: 0"},
		{`"height":64`, `"height":9999`, "decoder.height: 9999"},
		{`"batch":8`, `"batch":-1`, "decoder.batch: -1"},
		{`"batch":8`, `"batch":8,"stride":1`, `unknown field "stride"`},
		{`"batch":8}}`, `"batch":8}} {}`, "data after the object"},
		{`{"format":1`, `["format":1`, "decoding manifest: invalid"},
	} {
		data := strings.Replace(goodManifest, tc.from, tc.to, 1)
		if data == goodManifest {
			t.Fatalf("%q is not in the manifest", tc.from)
		}
		if _, err := DecodeManifest([]byte(data)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.to, err, tc.want)
		}
		if rises := strings.Contains(tc.want, "does not rise"); (fitsSchema([]byte(data)) == nil) != rises {
			t.Errorf("%s: the schema says %v", tc.to, fitsSchema([]byte(data)))
		}
	}
	if _, err := DecodeManifest([]byte(`{"format":1,"name":"x","dim":1}`)); err == nil || !strings.Contains(err.Error(), "all are missing") {
		t.Errorf("no parts: error %v", err)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte(goodDrawing))
	f.Add([]byte(`{"format":1,"name":"x","dim":1}`))
	f.Add([]byte(`{"format":1e0,"decoder":{"range":[0,1,2]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeManifest(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := fitsSchema(again); err != nil {
			t.Fatalf("the schema refuses what is read: %v\n%s", err, again)
		}
		back, err := DecodeManifest(again)
		if err != nil || !reflect.DeepEqual(m, back) {
			t.Fatalf("%s reads back as %+v, %v", again, back, err)
		}
	})
}
