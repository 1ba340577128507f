package images

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// ErrPicture is within every error of Read that is the file's fault.
var ErrPicture = errors.New("not a picture that can be read")

// Limits bound what reading a picture takes.
type Limits struct {
	Pixels int   // width x height, as the file's head says before anything is unpacked; each takes up to 8 bytes of memory
	Bytes  int64 // of the file
}

// DefaultLimits let through what cameras and screens make: 64 megapixels, 128 MiB.
func DefaultLimits() Limits { return Limits{Pixels: 64 << 20, Bytes: 128 << 20} }

// format is a kind of file that is read.
type format struct {
	name   string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

// Read reads a PNG, JPEG or WebP file, told by its first bytes and not by its name. Of an animated PNG it reads the still picture; animated
// WebP and other formats are refused by name, as are files that are cut off or beyond the limits, and WebP whose picture is not of its canvas's
// size. Colour of a lower resolution is interpolated,
// within three levels of libjpeg and one of libwebp. Colour profiles and the orientation that a
// camera notes are not applied.
func Read(r io.Reader, l Limits) (image.Image, error) {
	data, err := io.ReadAll(io.LimitReader(r, l.Bytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if int64(len(data)) > l.Bytes {
		return nil, fmt.Errorf("%w: has more than %d bytes", ErrPicture, l.Bytes)
	}
	f, err := formatOf(data)
	if err != nil {
		return nil, err
	}
	head, err := f.config(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrPicture, f.name, whole(err))
	}
	if head.Width < 1 || head.Height < 1 || head.Width > l.Pixels/head.Height {
		return nil, fmt.Errorf("%w: %s of %dx%d pixels, at most %d are read", ErrPicture, f.name, head.Width, head.Height, l.Pixels)
	}
	img, err := f.decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrPicture, f.name, whole(err))
	}
	return smooth(img, f.name == "WebP"), nil
}

// whole words the end of a file for people.
func whole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file is cut off: %w", err)
	}
	return err
}

func formatOf(data []byte) (format, error) {
	at := func(offset int, magic string) bool {
		return len(data) >= offset+len(magic) && string(data[offset:offset+len(magic)]) == magic
	}
	switch {
	case mediaTypeOf(data) == PNG:
		return format{"PNG", png.DecodeConfig, png.Decode}, nil
	case mediaTypeOf(data) == JPEG:
		return format{"JPEG", jpeg.DecodeConfig, jpeg.Decode}, nil
	case at(0, "RIFF") && at(8, "WEBP"):
		if at(12, "VP8X") && len(data) > 20 && data[20]&2 != 0 { // the flag "animation" of the extended format
			return format{}, fmt.Errorf("%w: an animated WebP, save the frame that is meant", ErrPicture)
		}
		return format{"WebP", webpConfig, webp.Decode}, nil
	case len(data) == 0:
		return format{}, fmt.Errorf("%w: the file is empty", ErrPicture)
	}
	name := "of no known format"
	for _, other := range []struct {
		offset      int
		magic, name string
	}{
		{0, "GIF8", "a GIF"}, {0, "BM", "a BMP"}, {0, "II*\x00", "a TIFF"}, {0, "MM\x00*", "a TIFF"}, {4, "ftypavif", "an AVIF"}, {4, "ftyphei", "a HEIC"},
		{0, "%PDF", "a PDF"}, {0, "<svg", "an SVG"}, {0, "<?xml", "an SVG"},
	} {
		if at(other.offset, other.magic) {
			name = other.name
			break
		}
	}
	return format{}, fmt.Errorf("%w: is %s; PNG, JPEG and WebP are read", ErrPicture, name)
}
