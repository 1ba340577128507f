package prior

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// A safetensors file is the length of a JSON header as u64 little-endian, the header, which has an entry for each tensor and free
// strings under __metadata__, then the tensors, row-major.
const (
	maxHeader   = 16 << 20
	metadataKey = "__metadata__"
)

// tensorInfo is an entry of the header.
type tensorInfo struct {
	Type    string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"` // in bytes, after the header
}

// section is a float32 tensor of a file and its place in memory.
type section struct {
	name  string
	shape []int
	data  []float32
}

// encodeHeader returns the length and the header of a file of the given tensors in their order.
func encodeHeader(metadata any, sections []section) ([]byte, error) {
	header := map[string]any{metadataKey: metadata}
	var end int64
	for _, t := range sections {
		start := end
		end += 4 * int64(len(t.data))
		header[t.name] = tensorInfo{"F32", t.shape, [2]int64{start, end}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), nil
}

// encodeBody returns the tensors' bytes.
func encodeBody(sections []section) []byte {
	size := 0
	for _, t := range sections {
		size += 4 * len(t.data)
	}
	out := make([]byte, 0, size)
	for _, t := range sections {
		for _, x := range t.data {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
		}
	}
	return out
}

// decodeHeader cuts a file into the entries of its header and the tensors' bytes.
func decodeHeader(data []byte) (header map[string]json.RawMessage, body []byte, err error) {
	if len(data) < 8 {
		return nil, nil, fmt.Errorf("%d bytes are no safetensors file", len(data))
	}
	length := binary.LittleEndian.Uint64(data)
	body = data[8:]
	if length > maxHeader || length > uint64(len(body)) {
		return nil, nil, fmt.Errorf("header of %d bytes in a file of %d: not a safetensors file, or cut short", length, len(data))
	}
	if err := json.Unmarshal(body[:length], &header); err != nil {
		return nil, nil, fmt.Errorf("decoding header: %w", err)
	}
	return header, body[length:], nil
}

// decode reads the tensor described by raw from body into the section.
func (t section) decode(raw json.RawMessage, body []byte) error {
	if raw == nil {
		return fmt.Errorf("missing")
	}
	var info tensorInfo
	if err := json.Unmarshal(raw, &info); err != nil {
		return fmt.Errorf("decoding header: %w", err)
	}
	if info.Type != "F32" || !slices.Equal(info.Shape, t.shape) {
		return fmt.Errorf("%s of shape %v, this configuration has F32 of shape %v", info.Type, info.Shape, t.shape)
	}
	start, end := info.Offsets[0], info.Offsets[1]
	if start < 0 || start > end || end > int64(len(body)) || end-start != 4*int64(len(t.data)) {
		return fmt.Errorf("offsets %v do not hold %d values in %d bytes", info.Offsets, len(t.data), len(body))
	}
	for i := range t.data {
		t.data[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[start+4*int64(i):]))
	}
	return nil
}

// writeDurably replaces the file at path whole or not at all, and returns when it is on disk.
func writeDurably(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
