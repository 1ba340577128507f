package online

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"rebeca/prior"
)

// ErrConfig is returned by [Trainer.Open] when the newest checkpoint is of
// another model than the configured one. The error says what differs.
var ErrConfig = errors.New("online: the checkpoint is of another prior than the configured one")

// Keys of a checkpoint's metadata.
const (
	metaNumber = "online.number" // version number, decimal
	metaRecord = "online.record" // the rest, JSON of record
)

// record is what the trainer itself keeps in a checkpoint. It holds no clock:
// the same examples make the same bytes.
type record struct {
	Cursor    map[int32]int64 `json:"cursor"`     // next offset by partition
	Events    int64           `json:"events"`     // consumed since birth
	Examples  int64           `json:"examples"`   // targets learned from
	Pseudo    int64           `json:"pseudo"`     // of them, pseudo-users'
	Owed      int64           `json:"owed"`       // consumed events whose steps are still to be taken
	Birth     int64           `json:"birth"`      // steps taken on pseudo-users alone
	Idle      int64           `json:"idle"`       // steps taken on pseudo-users while the stream rested, in the weights
	IdleTaken int64           `json:"idle_taken"` // and ever
	Grown     bool            `json:"grown"`      // past birth: no step on pseudo-users alone any more
	Refused   int64           `json:"refused"`    // steps of no finite loss: part of the random streams
	Loss      float64         `json:"loss"`
	LossEMA   float64         `json:"loss_ema"`

	Law *Law `json:"law,omitempty"` // of pseudo-users, the last that was fitted

	Student *prior.Fidelity `json:"student,omitempty"` // the student's; nil before it was measured

	comparison
	Verdict   Verdict `json:"verdict"`
	Current   int64   `json:"current"`              // number of the version in use once this was decided on
	Reference int64   `json:"reference"`            // number of the version that the next candidate is held against
	Judged    bool    `json:"judged,omitempty"`     // a version was held against another: from then on only one that was may be the reference
	Strikes   int     `json:"strikes,omitempty"`    // candidates refused in a row, up to this one
	Undone    int64   `json:"undone,omitempty"`     // steps behind that are in no weights any more: part of the random streams
	From      int64   `json:"from,omitempty"`       // number of the checkpoint that an operator promoted
	HoldUntil int64   `json:"hold_until,omitempty"` // Unix seconds up to which an operator's choice stays in use
}

// checkpoint is a durable file of weights.
type checkpoint struct {
	number int64
	step   int64
	path   string
	sha256 string
	state  *prior.State // nil once a learner has it
	record record
	times  []time.Time // of events that no version before it knew, a sample
}

func (c checkpoint) version() string { return fmt.Sprintf("%d-%s", c.number, c.sha256[:12]) }

// checkpoints is a directory of files <number>-<sha256, 12 digits>.safetensors.
type checkpoints struct {
	dir string
	log *slog.Logger
}

var checkpointName = regexp.MustCompile(`^([0-9]{1,18})-([0-9a-f]{12})\.safetensors$`)

// unfinished is the name of a checkpoint whose hash is not known yet.
const unfinished = "unfinished.safetensors"

type named struct {
	number int64
	prefix string // of the hash
	path   string
}

// list returns the files by rising number.
func (c checkpoints) list() ([]named, error) {
	files, err := os.ReadDir(c.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing checkpoints: %w", err)
	}
	var out []named
	for _, f := range files {
		m := checkpointName.FindStringSubmatch(f.Name())
		if m == nil {
			continue
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			continue
		}
		out = append(out, named{n, m[2], filepath.Join(c.dir, f.Name())})
	}
	slices.SortFunc(out, func(a, b named) int { return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.path, b.path)) })
	return out, nil
}

// ErrNoVersion says that no checkpoint has a number that was asked for.
var ErrNoVersion = errors.New("no checkpoint has this number")

// newest loads the newest whole checkpoint, nil if there is none, and returns
// the highest number in use. A damaged file is passed over with a warning and
// left where it is.
func (c checkpoints) newest() (*checkpoint, int64, error) {
	files, err := c.list()
	if err != nil || len(files) == 0 {
		return nil, 0, err
	}
	highest := files[len(files)-1].number
	for _, f := range slices.Backward(files) {
		cp, err := c.load(f)
		if err == nil {
			return cp, highest, nil
		}
		c.log.Warn("checkpoint is damaged, trying the one before", "file", f.path, "err", err)
	}
	c.log.Error("no checkpoint is whole, learning starts anew", "dir", c.dir, "files", len(files))
	return nil, highest, nil
}

func (c checkpoints) load(f named) (*checkpoint, error) {
	sum, err := fileSHA256(f.path)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(sum, f.prefix) {
		return nil, fmt.Errorf("its SHA-256 is %s…, its name says %s", sum[:12], f.prefix)
	}
	st, err := prior.LoadState(f.path)
	if err != nil {
		return nil, err
	}
	cp := &checkpoint{number: f.number, step: st.Step, path: f.path, sha256: sum, state: st}
	if got := st.Meta[metaNumber]; got != strconv.FormatInt(f.number, 10) {
		return nil, fmt.Errorf("it holds version %q, its name says %d", got, f.number)
	}
	if cp.record, err = decodeRecord(f.number, st.Meta); err != nil {
		return nil, err
	}
	return cp, nil
}

func decodeRecord(number int64, meta map[string]string) (r record, err error) {
	if err := json.Unmarshal([]byte(meta[metaRecord]), &r); err != nil {
		return r, fmt.Errorf("decoding the trainer's record: %w", err)
	}
	if r.Verdict == "" { // of a build without a guard
		r.Verdict, r.Current, r.Reference = Unguarded, number, number
	}
	return r, nil
}

// numbered loads the whole checkpoint of that number.
func (c checkpoints) numbered(number int64) (*checkpoint, error) {
	files, err := c.list()
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%w: %d in %s", ErrNoVersion, number, c.dir)
	for _, f := range files {
		if f.number != number {
			continue
		}
		cp, loadErr := c.load(f)
		if loadErr == nil {
			return cp, nil
		}
		err = fmt.Errorf("checkpoint %s: %w", f.path, loadErr)
	}
	return nil, err
}

// standing are the checkpoints that a trainer goes on from.
type standing struct {
	newest    *checkpoint // its record is the trainer's; nil: there is none
	current   *checkpoint // the version in use
	reference *checkpoint // what candidates are held against
	highest   int64       // number in use
}

// standing loads them. What the newest names and is not whole any more is
// replaced by the newest announced checkpoint, or by the newest of all.
func (c checkpoints) standing() (s standing, err error) {
	if s.newest, s.highest, err = c.newest(); err != nil || s.newest == nil {
		return s, err
	}
	r := s.newest.record
	if s.current = s.newest; r.Current != s.newest.number {
		if s.current, err = c.numbered(r.Current); err != nil {
			c.log.Warn("the version in use is not whole, taking the newest that was announced", "err", err)
			s.current = c.announced(s.newest)
		}
	}
	if s.reference = s.current; r.Reference != s.current.number {
		if s.reference, err = c.numbered(r.Reference); err != nil {
			c.log.Warn("the version that candidates are held against is not whole, taking the one in use", "err", err)
			s.reference = s.current
		}
	}
	return s, nil
}

// announced loads the newest whole checkpoint that was announced, or returns otherwise.
func (c checkpoints) announced(otherwise *checkpoint) *checkpoint {
	files, err := c.list()
	if err != nil {
		return otherwise
	}
	for _, f := range slices.Backward(files) {
		if cp, err := c.load(f); err == nil && cp.record.Verdict.announced() {
			return cp
		}
	}
	return otherwise
}

// save writes st with r as version number. When it returns, the file is
// durable under its final name.
func (c checkpoints) save(st *prior.State, number int64, r record) (*checkpoint, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("creating the checkpoint directory: %w", err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the trainer's record: %w", err)
	}
	if st.Meta == nil {
		st.Meta = map[string]string{}
	}
	st.Meta[metaNumber], st.Meta[metaRecord] = strconv.FormatInt(number, 10), string(b)
	tmp := filepath.Join(c.dir, unfinished)
	sum, err := st.Save(tmp)
	if err != nil {
		return nil, fmt.Errorf("saving checkpoint %d: %w", number, err)
	}
	path := filepath.Join(c.dir, fmt.Sprintf("%d-%s.safetensors", number, sum[:12]))
	if err := os.Rename(tmp, path); err != nil {
		return nil, fmt.Errorf("naming checkpoint %d: %w", number, err)
	}
	if err := syncDir(c.dir); err != nil {
		return nil, fmt.Errorf("syncing the checkpoint directory: %w", err)
	}
	return &checkpoint{number: number, step: st.Step, path: path, sha256: sum, record: r}, nil
}

// keepWithheld is the number of newest candidates that are kept of those that
// were not announced.
const keepWithheld = 3

// spacing is the ratio of the ages of old versions that are kept: with a
// version every ten seconds a minute, ten minutes, an hour and a half, eleven
// hours and four days are there to go back to.
const spacing = 8

// prune removes all but the newest keep versions, older ones at growing
// distances, the newest candidates that were not announced and those pinned.
// What cannot be removed is logged: it costs space, not correctness.
func (c checkpoints) prune(keep int, pinned ...int64) {
	files, err := c.list()
	if err != nil {
		c.log.Warn("old checkpoints stay", "err", err)
		return
	}
	var versions, withheld []named
	for _, f := range slices.Backward(files) {
		if c.isVersion(f) {
			versions = append(versions, f)
		} else {
			withheld = append(withheld, f)
		}
	}
	kept := slices.Concat(pinned, spaced(versions))
	for _, f := range slices.Concat(versions[min(keep, len(versions)):], withheld[min(keepWithheld, len(withheld)):]) {
		if slices.Contains(kept, f.number) {
			continue
		}
		if err := os.Remove(f.path); err != nil {
			c.log.Warn("old checkpoint stays", "file", f.path, "err", err)
		}
	}
}

// isVersion says whether a file is of a version that was announced. A damaged
// one goes by its age as such.
func (c checkpoints) isVersion(f named) bool {
	h, err := prior.LoadHeader(f.path)
	if err != nil {
		return true
	}
	r, err := decodeRecord(f.number, h.Meta)
	return err != nil || r.Verdict.announced()
}

// spaced are the numbers of versions, the newest first, that are kept for their
// age: of each power of spacing the last two multiples, or what is there just
// below them.
func spaced(versions []named) []int64 {
	var out []int64
	if len(versions) == 0 {
		return nil
	}
	last := versions[0].number
	for step := int64(spacing); step <= last; step *= spacing {
		for _, at := range []int64{last / step * step, last/step*step - step} {
			for _, f := range versions {
				if f.number <= at {
					out = append(out, f.number)
					break
				}
			}
		}
	}
	return out
}

// compatible reports how a checkpoint's model differs from the configured one,
// as an error wrapping [ErrConfig] that says what to do; zero fields match
// anything, "auto" any kind that reads windows.
func compatible(have, want prior.Config) error {
	differ := func(name string, have, want any) error {
		return fmt.Errorf("%w: prior.%s is %v there, configured %v: set it back, or start anew with `rebeca prior reset`", ErrConfig, name, have, want)
	}
	if anyKind := want.Kind == "auto" || want.Kind == ""; have.Kind != want.Kind && (!anyKind || have.HasUserTable()) {
		return differ("kind", have.Kind, want.Kind)
	}
	if have.Kind != "transformer" {
		want.Tokens = 0 // nothing is cut
	}
	for _, f := range []struct {
		name       string
		have, want int
	}{
		{"dim", have.Dim, want.Dim}, {"hidden", have.Hidden, want.Hidden}, {"blocks", have.Blocks, want.Blocks},
		{"heads", have.Heads, want.Heads}, {"tokens", have.Tokens, want.Tokens}, {"timesteps", have.Timesteps, want.Timesteps},
	} {
		if f.want != 0 && f.have != f.want {
			return differ(f.name, f.have, f.want)
		}
	}
	for _, f := range []struct {
		name       string
		have, want any
	}{
		{"objective", have.Loss.Objective, want.Loss.Objective}, {"schedule", have.Loss.Schedule, want.Loss.Schedule},
		{"time_sampling", have.Loss.TimeSampling, want.Loss.TimeSampling}, {"time_mean", have.Loss.TimeMean, want.Loss.TimeMean},
		{"time_std", have.Loss.TimeStd, want.Loss.TimeStd}, {"weighting", have.Loss.Weighting, want.Loss.Weighting},
		{"gamma", have.Loss.Gamma, want.Loss.Gamma},
	} {
		if f.want != "" && f.have != f.want {
			return differ("loss."+f.name, f.have, f.want)
		}
	}
	return nil
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
