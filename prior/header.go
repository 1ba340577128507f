package prior

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Header is what a checkpoint says of itself ahead of its weights.
type Header struct {
	Config Config
	Step   int64
	Meta   map[string]string // State.Meta
}

// LoadHeader reads the head of a checkpoint alone: the weights are neither read nor checked.
func LoadHeader(path string) (h Header, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("reading the head of checkpoint %s: %w", path, err)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	var size [8]byte
	if _, err := io.ReadFull(f, size[:]); err != nil {
		return h, err
	}
	length := binary.LittleEndian.Uint64(size[:])
	if length > maxHeader {
		return h, fmt.Errorf("a header of %d bytes: not a safetensors file", length)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(f, text); err != nil {
		return h, err
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(text, &header); err != nil {
		return h, fmt.Errorf("decoding header: %w", err)
	}
	s, _, err := decodeMetadata(header[metadataKey])
	if err != nil {
		return h, err
	}
	return Header{Config: s.Config, Step: s.Step, Meta: s.Meta}, nil
}
