package prior

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A checkpoint is a safetensors file (see safetensors.go). Parameters are stored under their own names, params.<name>, ema.<name>,
// m.<name> and v.<name>, and the statistics as stats.mean and stats.scale; the rest is in the header's __metadata__.
const (
	checkpointKind    = "rebeca.prior"
	checkpointVersion = 2
)

// metadata is the __metadata__ of a checkpoint; safetensors allows strings only.
type metadata struct {
	Kind     string `json:"kind"`
	Version  string `json:"format_version"`
	Config   string `json:"config"` // JSON of Config
	Seed     string `json:"seed"`
	Step     string `json:"step"`
	Meta     string `json:"meta"`               // JSON of State.Meta
	Checksum string `json:"checksum,omitempty"` // see metadata.checksum; older files have none
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

// studentStep is the tensor that tells that there is a student.
const studentStep = "student.step"

// sections lists the tensors of s, which must have the size of its layout; numbers holds those that lie in no vector.
func (s *Student) sections(c Config, numbers *studentNumbers) []section {
	out := []section{{studentStep, []int{1}, numbers.step[:]}, {"student.fidelity", []int{len(numbers.fidelity)}, numbers.fidelity[:]}}
	l := c.resolved().studentLayout()
	for _, v := range s.vectors() {
		for _, p := range l.parameters {
			out = append(out, section{v.name + "." + p.name, p.shape, v.data[p.offset : p.offset+p.size]})
		}
	}
	return out
}

// studentNumbers are a student's numbers as tensors: builds that know no students pass over them.
type studentNumbers struct {
	step     [1]float32
	fidelity [4]float32 // distances, bound
}

func (s *Student) numbers() *studentNumbers {
	n := &studentNumbers{step: [1]float32{float32(s.Step)}}
	copy(n.fidelity[:], append(s.Distances[:], s.Bound))
	return n
}

// decodeStudent reads the student of a checkpoint of configuration c, nil if it has none.
func decodeStudent(c Config, header map[string]json.RawMessage, body []byte) (*Student, error) {
	if header[studentStep] == nil {
		return nil, nil
	}
	if err := c.CanTeach(); err != nil {
		return nil, err
	}
	s, n := new(Student), new(studentNumbers)
	size := c.studentLayout().size
	if want := 4 * 5 * int64(size); int64(len(body)) < want {
		return nil, fmt.Errorf("%d bytes of tensors, a student of this configuration has %d: cut short", len(body), want)
	}
	for _, v := range []*[]float32{&s.Params, &s.EMA, &s.Fast, &s.M, &s.V} {
		*v = make([]float32, size)
	}
	for _, t := range s.sections(c, n) {
		if err := t.decode(header[t.name], body); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", t.name, err)
		}
	}
	if x := n.step[0]; !(x >= 0 && x <= maxStudentStep) {
		return nil, fmt.Errorf("tensor %s holds %v", studentStep, x)
	}
	s.Step = int64(n.step[0])
	s.Distances, s.Bound = [3]float32(n.fidelity[:3]), n.fidelity[3]
	return s, nil
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
	m := metadata{
		Kind: checkpointKind, Version: strconv.Itoa(s.version()), Config: string(config),
		Seed: strconv.FormatUint(s.Seed, 10), Step: strconv.FormatInt(s.Step, 10), Meta: string(meta),
	}
	sections := s.sections()
	if s.Student != nil {
		sections = append(sections, s.Student.sections(s.Config, s.Student.numbers())...)
	}
	body := encodeBody(sections)
	m.Checksum = m.checksum(body)
	header, err := encodeHeader(m, sections)
	if err != nil {
		return nil, err
	}
	return append(header, body...), nil
}

// version is the oldest format that says what s is: builds of format 1 know one kind and one loss.
func (s *State) version() int {
	if c := s.Config.resolved(); c.Kind == kindMLP && c.Loss == DefaultLoss() {
		return 1
	}
	return checkpointVersion
}

// checksum is the SHA-256, in hex, of all that a checkpoint holds: the metadata's other fields, a line each, and the tensors.
func (m metadata) checksum(body []byte) string {
	h := sha256.New()
	for _, field := range []string{m.Kind, m.Version, m.Config, m.Seed, m.Step, m.Meta} {
		io.WriteString(h, field+"\n")
	}
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// LoadState reads a checkpoint. It refuses a file of a newer format, a tensor that is missing, of another type or shape, numbers
// that are not finite and contents that do not have the checksum, and names what it refuses.
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
	header, body, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	s, m, err := decodeMetadata(header[metadataKey])
	if err != nil {
		return nil, err
	}
	n := s.Config.network().layout().size
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
	if s.Student, err = decodeStudent(s.Config, header, body); err != nil {
		return nil, err
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	if m.Checksum != "" && m.Checksum != m.checksum(body) {
		return nil, fmt.Errorf("checksum %s, the contents have %s: damaged after it was written, restore it from a copy", m.Checksum, m.checksum(body))
	}
	return s, nil
}

func decodeMetadata(raw json.RawMessage) (*State, metadata, error) {
	var m metadata
	if raw == nil {
		return nil, m, fmt.Errorf("no __metadata__: not a checkpoint of a prior")
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, m, fmt.Errorf("decoding __metadata__: %w", err)
	}
	if m.Kind != checkpointKind {
		return nil, m, fmt.Errorf("kind %q, not %q: not a checkpoint of a prior", m.Kind, checkpointKind)
	}
	version, err := strconv.Atoi(m.Version)
	if err != nil || version < 1 {
		return nil, m, fmt.Errorf("format version %q", m.Version)
	}
	if version > checkpointVersion {
		return nil, m, fmt.Errorf("format version %d is newer than %d, the newest this build reads: use the build that wrote it", version, checkpointVersion)
	}
	s := new(State)
	if err := decodeConfig(m.Config, &s.Config); err != nil {
		return nil, m, fmt.Errorf("decoding config: %w", err)
	}
	if err := s.Config.Validate(); err != nil {
		return nil, m, fmt.Errorf("config: %w", err)
	}
	s.Config = s.Config.resolved() // files of format 1 may not name the loss
	if s.Seed, err = strconv.ParseUint(m.Seed, 10, 64); err != nil {
		return nil, m, fmt.Errorf("decoding seed: %w", err)
	}
	if s.Step, err = strconv.ParseInt(m.Step, 10, 64); err != nil {
		return nil, m, fmt.Errorf("decoding step: %w", err)
	}
	if err := json.Unmarshal([]byte(m.Meta), &s.Meta); err != nil {
		return nil, m, fmt.Errorf("decoding meta: %w", err)
	}
	if s.Meta == nil {
		s.Meta = map[string]string{}
	}
	return s, m, nil
}

// decodeConfig is strict: a field that this build does not know would change what the weights mean.
func decodeConfig(text string, c *Config) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(c)
}
