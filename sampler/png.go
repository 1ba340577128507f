package sampler

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/png"
	"sync"

	"rebeca/schemas"
)

// PNG encodes an image, fast rather than small: the fastest level of compression. The same pixels give the same bytes.
func PNG(img image.Image) ([]byte, error) {
	var out bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: (*pngBuffers)(&pngPool)}
	if err := enc.Encode(&out, img); err != nil {
		return nil, fmt.Errorf("encoding PNG: %w", err)
	}
	return out.Bytes(), nil
}

// InlinePNG is an image as it travels inside a record.
func InlinePNG(img image.Image) (schemas.Image, error) {
	data, err := PNG(img)
	if err != nil {
		return schemas.Image{}, err
	}
	sum := sha256.Sum256(data)
	size := img.Bounds().Size()
	return schemas.Image{
		MediaType: "image/png", Width: size.X, Height: size.Y,
		SHA256: hex.EncodeToString(sum[:]), Data: data,
	}, nil
}

// pngPool keeps the encoder's scratch memory (near 1 MB a call) between calls. It is a cache: no result depends on it.
var pngPool sync.Pool

type pngBuffers sync.Pool

func (p *pngBuffers) Get() *png.EncoderBuffer {
	b, _ := (*sync.Pool)(p).Get().(*png.EncoderBuffer)
	return b
}

func (p *pngBuffers) Put(b *png.EncoderBuffer) { (*sync.Pool)(p).Put(b) }
