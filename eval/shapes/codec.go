package shapes

import (
	"embed"
	"io/fs"
)

// The codec that tools/shapes_vae.py trained; model/CARD.md states how good it is.
//
//go:embed model/manifest.json model/encoder.onnx model/decoder.onnx
var model embed.FS

// Codec is the folder of the world's codec: manifest.json, encoder.onnx ("image"
// [N, 3, 64, 64] in 0..1 to "mu" [N, 16]) and decoder.onnx ("z" [N, 16] to "image"
// [N, 3, 64, 64] in 0..1).
func Codec() fs.FS {
	sub, err := fs.Sub(model, "model")
	if err != nil {
		panic("shapes: " + err.Error()) // the name is a valid path
	}
	return sub
}
