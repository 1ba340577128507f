package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"

	"rebeca/sampler"
)

// Media types that are written.
const (
	PNG  = "image/png"
	JPEG = "image/jpeg"
)

// Format says how pictures are encoded. The same picture, id and format give the same bytes.
type Format struct {
	MediaType string // PNG or JPEG
	Quality   int    // of JPEG, 1 to 100
}

// File is an encoded picture.
type File struct {
	MediaType     string
	Width, Height int
	Sum           Sum
	Data          []byte
}

// Sum is the SHA-256 of a file's bytes, the name of its object.
type Sum [sha256.Size]byte

// String returns 64 hex digits.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// ParseSum reads 64 lower-case hex digits.
func ParseSum(text string) (Sum, bool) {
	var s Sum
	if len(text) != hex.EncodedLen(len(s)) {
		return s, false
	}
	_, err := hex.Decode(s[:], []byte(text))
	return s, err == nil && s.String() == text
}

// Encode makes a file of a picture, with the id of its record inside: as text "rebeca-id" of a PNG, as comment of a JPEG. An empty id
// is left out. An id has at most 256 bytes.
func (f Format) Encode(img image.Image, id string) (File, error) {
	var data []byte
	var err error
	switch f.MediaType {
	case PNG:
		if data, err = sampler.PNG(img); err == nil {
			data = namePNG(data, id)
		}
	case JPEG:
		var out bytes.Buffer
		if err = jpeg.Encode(&out, img, &jpeg.Options{Quality: f.Quality}); err != nil {
			err = fmt.Errorf("encoding JPEG: %w", err)
		}
		data = nameJPEG(out.Bytes(), id)
	default:
		panic("images: no format " + f.MediaType)
	}
	if err != nil {
		return File{}, err
	}
	size := img.Bounds().Size()
	return File{MediaType: f.MediaType, Width: size.X, Height: size.Y, Sum: sha256.Sum256(data), Data: data}, nil
}

// pngHead is what a PNG begins with: the signature and the chunk IHDR, which has to come first.
const pngHead = 8 + 4 + 4 + 13 + 4

// namePNG puts a tEXt chunk (PNG, section 11.3.4.3) behind IHDR.
func namePNG(data []byte, id string) []byte {
	if id == "" {
		return data
	}
	text := "rebeca-id\x00" + id
	out := make([]byte, 0, len(data)+12+len(text))
	out = append(out, data[:pngHead]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(text)))
	from := len(out)
	out = append(append(out, "tEXt"...), text...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[from:]))
	return append(out, data[pngHead:]...)
}

// nameJPEG puts a comment (COM, ITU T.81 B.2.4.5) behind the start of the image.
func nameJPEG(data []byte, id string) []byte {
	if id == "" || len(data) < 2 {
		return data
	}
	text := "rebeca-id " + id
	out := make([]byte, 0, len(data)+4+len(text))
	out = append(out, data[:2]...)
	out = append(out, 0xff, 0xfe)
	out = binary.BigEndian.AppendUint16(out, uint16(2+len(text)))
	return append(append(out, text...), data[2:]...)
}

// mediaTypeOf tells by a file's first bytes what it is, "" for neither format.
func mediaTypeOf(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return PNG
	case bytes.HasPrefix(data, []byte{0xff, 0xd8, 0xff}):
		return JPEG
	}
	return ""
}
