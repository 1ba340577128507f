package sampler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"

	"rebeca/sampler/stablediffusion"
)

// ManifestFormat is the version of the manifest that this package reads.
const ManifestFormat = 1

const (
	maxDim     = 1 << 14
	maxSide    = 4096
	maxBatch   = 1024
	layoutNCHW = "NCHW"
)

// Manifest describes the ONNX files of a codec. Its JSON is strict: an unknown key is an error.
type Manifest struct {
	Format  int    `json:"format"`
	Name    string `json:"name"`
	Dim     int    `json:"dim"`     // length of an embedding
	Decoder *Part  `json:"decoder"` // embeddings to images; null if there is none
	Encoder *Part  `json:"encoder"` // images to embeddings; null if there is none
	// StableDiffusion is a decoder of many files in place of Decoder's one; null if there is none.
	StableDiffusion *stablediffusion.Config `json:"stable_diffusion,omitempty"`
}

// Part is one ONNX file with an image on one side and embeddings [batch, dim] on the other, both float32.
type Part struct {
	File   string     `json:"file"`   // slash-separated, in the manifest's file system
	Input  string     `json:"input"`  // name of the input
	Output string     `json:"output"` // name of the output
	Layout string     `json:"layout"` // of the image: NCHW, three channels in the order red, green, blue
	Range  [2]float64 `json:"range"`  // values of the image that stand for 0 and 255
	Width  int        `json:"width"`
	Height int        `json:"height"`
	Batch  int        `json:"batch"` // rows of every run; smaller calls are padded
	// How an encoder prepares pictures. Resize is empty for a network that takes pictures of its size alone, or "shortest": the shorter side
	// becomes the network's, bicubic, and the middle is cut out. Mean and Std of the three channels, if given, are taken off and
	// divided by after Range.
	Resize string    `json:"resize,omitempty"`
	Mean   []float64 `json:"mean,omitempty"`
	Std    []float64 `json:"std,omitempty"`
}

// DecodeManifest reads a manifest; an error names the field.
func DecodeManifest(data []byte) (Manifest, error) {
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Manifest{}, errors.New("decoding manifest: data after the object")
	}
	if err := m.validate(); err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", err)
	}
	return m, nil
}

func (m Manifest) validate() error {
	switch {
	case m.Format != ManifestFormat:
		return fmt.Errorf("format: %d, this version reads %d", m.Format, ManifestFormat)
	case m.Name == "":
		return errors.New("name: missing")
	case m.Dim < 1 || m.Dim > maxDim:
		return fmt.Errorf("dim: %d is not within 1 to %d", m.Dim, maxDim)
	case m.Decoder == nil && m.Encoder == nil && m.StableDiffusion == nil:
		return errors.New("decoder, stable_diffusion, encoder: all are missing")
	case m.Decoder != nil && m.StableDiffusion != nil:
		return errors.New("decoder, stable_diffusion: both are given, one decodes")
	}
	if c := m.StableDiffusion; c != nil {
		if err := c.Validate(); err != nil {
			return fmt.Errorf("stable_diffusion.%w", err)
		}
	}
	for _, p := range []struct {
		field string
		part  *Part
	}{{"decoder", m.Decoder}, {"encoder", m.Encoder}} {
		if p.part == nil {
			continue
		}
		err := p.part.validate()
		if err == nil {
			err = p.part.preparation(p.field == "encoder")
		}
		if err != nil {
			return fmt.Errorf("%s.%w", p.field, err)
		}
	}
	return nil
}

func (p Part) validate() error {
	switch {
	case !fs.ValidPath(p.File) || p.File == ".":
		return fmt.Errorf("file: %q is not a relative slash-separated path", p.File)
	case p.Input == "":
		return errors.New("input: missing")
	case p.Output == "":
		return errors.New("output: missing")
	case p.Layout != layoutNCHW:
		return fmt.Errorf("layout: %q is unknown, %s is read", p.Layout, layoutNCHW)
	case !(p.Range[0] < p.Range[1]) || math.IsInf(p.Range[0], 0) || math.IsInf(p.Range[1], 0):
		return fmt.Errorf("range: %v does not rise", p.Range)
	case p.Width < 1 || p.Width > maxSide:
		return fmt.Errorf("width: %d is not within 1 to %d", p.Width, maxSide)
	case p.Height < 1 || p.Height > maxSide:
		return fmt.Errorf("height: %d is not within 1 to %d", p.Height, maxSide)
	case p.Batch < 1 || p.Batch > maxBatch:
		return fmt.Errorf("batch: %d is not within 1 to %d", p.Batch, maxBatch)
	}
	return nil
}

func (p Part) imageShape() []int64 {
	return []int64{int64(p.Batch), 3, int64(p.Height), int64(p.Width)}
}
