package prior

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// A checkpoint is a safetensors file: the length of a JSON header as u64 little-endian, the header, then float32 tensors. Parameters
// are stored under their own names, params.<name>, ema.<name>, m.<name> and v.<name>, and the statistics as stats.mean and
// stats.scale; the rest is in the header's __metadata__.
const (
	checkpointKind    = "rebeca.prior"
	checkpointVersion = 1
	maxHeader         = 16 << 20
)

// metadata is the __metadata__ of a checkpoint; safetensors allows strings only.
type metadata struct {
	Kind    string `json:"kind"`
	Version string `json:"format_version"`
	Config  string `json:"config"` // JSON of Config
	Seed    string `json:"seed"`
	Step    string `json:"step"`
	Meta    string `json:"meta"` // JSON of State.Meta
}

// tensorInfo is an entry of the header.
type tensorInfo struct {
	Type    string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"` // in bytes, after the header
}

// section is a tensor of a checkpoint and its place in a flat vector.
type section struct {
	name  string
	shape []int
	data  []float32
}

// sections lists the tensors of s in file order. The vectors of s must have the size of its layout.
func (s *State) sections() []section {
	out := []section{{"stats.mean", []int{s.Config.Dim}, s.Stats.Mean}, {"stats.scale", []int{s.Config.Dim}, s.Stats.Scale}}
	l := s.Config.resolved().network().layout()
	for _, v := range s.vectors() {
		for _, p := range l.parameters {
			out = append(out, section{v.name + "." + p.name, p.shape, v.data[p.offset : p.offset+p.size]})
		}
	}
	return out
}

// Save writes the state to path and returns the SHA-256 of the file in hex. The file appears whole or not at all, and is on disk
// when Save returns: it is written beside path, synced and renamed, and the directory is synced. A state that does not fit its
// configuration or holds numbers that are not finite is refused.
func (s *State) Save(path string) (sha256hex string, err error) {
	if err := s.validate(); err != nil {
		return "", fmt.Errorf("saving checkpoint %s: %w", path, err)
	}
	data, err := s.encode()
	if err == nil {
		err = writeDurably(path, data)
	}
	if err != nil {
		return "", fmt.Errorf("saving checkpoint %s: %w", path, err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (s *State) encode() ([]byte, error) {
	config, err := json.Marshal(s.Config)
	if err != nil {
		return nil, err
	}
	meta, err := json.Marshal(s.Meta)
	if err != nil {
		return nil, err
	}
	header := map[string]any{"__metadata__": metadata{
		Kind: checkpointKind, Version: strconv.Itoa(checkpointVersion), Config: string(config),
		Seed: strconv.FormatUint(s.Seed, 10), Step: strconv.FormatInt(s.Step, 10), Meta: string(meta),
	}}
	var end int64
	sections := s.sections()
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
	out := make([]byte, 0, 8+int64(len(text))+end)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(text)))
	out = append(out, text...)
	for _, t := range sections {
		for _, x := range t.data {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
		}
	}
	return out, nil
}

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

// LoadState reads a checkpoint. It refuses a file of a newer format, a tensor that is missing, of another type or shape, and numbers
// that are not finite, and names what it refuses.
func LoadState(path string) (*State, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading checkpoint: %w", err)
	}
	s, err := decodeState(data)
	if err != nil {
		return nil, fmt.Errorf("reading checkpoint %s: %w", path, err)
	}
	return s, nil
}

func decodeState(data []byte) (*State, error) {
	if len(data) < 8 {
		return nil, fmt.Errorf("%d bytes are no safetensors file", len(data))
	}
	length := binary.LittleEndian.Uint64(data)
	body := data[8:]
	if length > maxHeader || length > uint64(len(body)) {
		return nil, fmt.Errorf("header of %d bytes in a file of %d: not a safetensors file, or cut short", length, len(data))
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(body[:length], &header); err != nil {
		return nil, fmt.Errorf("decoding header: %w", err)
	}
	s, err := decodeMetadata(header["__metadata__"])
	if err != nil {
		return nil, err
	}
	body = body[length:]
	n := s.Config.resolved().network().layout().size
	if want := 4 * (4*int64(n) + 2*int64(s.Config.Dim)); int64(len(body)) < want {
		return nil, fmt.Errorf("%d bytes of tensors, this configuration has %d: cut short", len(body), want)
	}
	s.Params, s.EMA, s.M, s.V = make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	s.Stats = Stats{make([]float32, s.Config.Dim), make([]float32, s.Config.Dim)}
	for _, t := range s.sections() {
		if err := t.decode(header[t.name], body); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", t.name, err)
		}
	}
	return s, s.validate()
}

func decodeMetadata(raw json.RawMessage) (*State, error) {
	var m metadata
	if raw == nil {
		return nil, fmt.Errorf("no __metadata__: not a checkpoint of a prior")
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("decoding __metadata__: %w", err)
	}
	if m.Kind != checkpointKind {
		return nil, fmt.Errorf("kind %q, not %q: not a checkpoint of a prior", m.Kind, checkpointKind)
	}
	version, err := strconv.Atoi(m.Version)
	if err != nil || version < 1 {
		return nil, fmt.Errorf("format version %q", m.Version)
	}
	if version > checkpointVersion {
		return nil, fmt.Errorf("format version %d is newer than %d, the newest this build reads: use the build that wrote it", version, checkpointVersion)
	}
	s := new(State)
	if err := json.Unmarshal([]byte(m.Config), &s.Config); err != nil {
		return nil, fmt.Errorf("decoding config: %w", err)
	}
	if err := s.Config.Validate(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if s.Seed, err = strconv.ParseUint(m.Seed, 10, 64); err != nil {
		return nil, fmt.Errorf("decoding seed: %w", err)
	}
	if s.Step, err = strconv.ParseInt(m.Step, 10, 64); err != nil {
		return nil, fmt.Errorf("decoding step: %w", err)
	}
	if err := json.Unmarshal([]byte(m.Meta), &s.Meta); err != nil {
		return nil, fmt.Errorf("decoding meta: %w", err)
	}
	if s.Meta == nil {
		s.Meta = map[string]string{}
	}
	return s, nil
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
