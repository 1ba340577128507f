package rebeca

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"rebeca/consumer"
	"rebeca/schemas"
)

// importBatch is how many lines are produced and acknowledged together; a
// resumed import repeats at most that many.
const importBatch = 1000

// maxLine bounds a line of an imported file.
const maxLine = 8 << 20

// Import produces the lines of a JSONL file to a topic, in order, and
// remembers under StateDir how far it came and what that part of the file was,
// so that the same call goes on after an interruption: also when lines after
// that part were mended or added. When the part itself has changed, all is sent
// again.
type Import struct {
	Client     *consumer.Client
	Topic      string
	Partitions int
	// Parse validates a line and returns its key.
	Parse func(line []byte) (key []byte, err error)
	// StateDir keeps the positions of imports.
	StateDir string
	// Skip passes over bad lines, reporting each to OnBad, instead of failing.
	Skip  bool
	OnBad func(line int, err error)
	// Progress is told the bytes produced so far and the file's size; nil: nobody.
	Progress func(done, total int64)
}

// ImportResult says what an import did.
type ImportResult struct {
	Resumed  bool `json:"resumed"` // it began where an earlier one was interrupted
	Changed  bool `json:"changed"` // an earlier one sent a part that has changed since: it began anew
	Produced int  `json:"produced"`
	Bad      int  `json:"bad"`
}

// FeedbackLine parses a line of a feedback history.
func FeedbackLine(line []byte) ([]byte, error) {
	f, err := schemas.ParseFeedback(line, time.Now())
	return []byte(f.UserID), err
}

// ItemLine parses a line of a catalogue of the given dimension.
func ItemLine(dim int) func([]byte) ([]byte, error) {
	return func(line []byte) ([]byte, error) {
		i, err := schemas.ParseItem(line, dim)
		return []byte(i.ItemID), err
	}
}

// importPosition is the remembered part of an import.
type importPosition struct {
	Topic string `json:"topic"`
	Bytes int64  `json:"bytes"` // acknowledged
	Lines int    `json:"lines"`
	// SHA256 of the bytes acknowledged, in hex.
	SHA256 string `json:"sha256"`
}

// importing is an import under way.
type importing struct {
	*Import
	path string
	file *os.File
	size int64 // of the file at the start; what is added later is left for another call
	pos  importPosition
	sent hash.Hash // of the first pos.Bytes
	res  ImportResult
}

// Run imports the file, which must be a regular one. A line that does not parse
// ends it with the line's number, unless Skip is set. It ends with ctx, and
// with an error when the file shrinks meanwhile.
func (im *Import) Run(ctx context.Context, path string) (res ImportResult, err error) {
	f, err := os.Open(path)
	if err != nil {
		return res, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return res, err
	}
	if !info.Mode().IsRegular() {
		return res, fmt.Errorf("%s is not a regular file: an import must be able to go on in the middle of it", path)
	}
	remember, err := im.positionFile(path)
	if err != nil {
		return res, err
	}
	run := importing{Import: im, path: path, file: f, size: info.Size()}
	if err := run.resume(ctx, remember); err != nil {
		return res, err
	}
	if run.res.Resumed && run.pos.Bytes == run.size {
		return res, fmt.Errorf("%s has been imported to %s before (remove %s to do it again)", path, im.Topic, remember)
	}
	if im.Progress == nil {
		im.Progress = func(done, total int64) {}
	}
	im.Progress(run.pos.Bytes, run.size)
	r := bufio.NewReaderSize(io.NewSectionReader(f, run.pos.Bytes, run.size-run.pos.Bytes), 1<<20)
	for run.pos.Bytes < run.size {
		if err := ctx.Err(); err != nil {
			return run.res, fmt.Errorf("importing %s, %d lines are sent: %w", path, run.pos.Lines, err)
		}
		before := run.pos.Bytes
		if err := run.batch(ctx, r); err != nil {
			return run.res, err
		}
		if run.pos.Bytes == before {
			return run.res, fmt.Errorf("%s has shrunk from %d to %d bytes while it was read", path, run.size, run.pos.Bytes)
		}
		if err := writePosition(remember, run.pos); err != nil {
			return run.res, fmt.Errorf("remembering the position of the import: %w", err)
		}
		im.Progress(run.pos.Bytes, run.size)
	}
	return run.res, nil
}

// resume finds the position to begin at: that of an earlier import if what it
// sent is what the file begins with, else the beginning.
func (r *importing) resume(ctx context.Context, remember string) error {
	r.pos, r.sent = importPosition{Topic: r.Topic}, sha256.New()
	old, ok := readPosition(remember)
	if !ok || old.Topic != r.Topic || old.Bytes <= 0 {
		return nil
	}
	r.res.Changed = true
	if old.Bytes > r.size {
		return nil
	}
	if _, err := io.Copy(r.sent, during{ctx, io.NewSectionReader(r.file, 0, old.Bytes)}); err != nil {
		return fmt.Errorf("reading the part of %s that is sent already: %w", r.path, err)
	}
	if hex.EncodeToString(r.sent.Sum(nil)) != old.SHA256 {
		r.sent.Reset()
		return nil
	}
	var last [1]byte
	if _, err := r.file.ReadAt(last[:], old.Bytes-1); err != nil {
		return fmt.Errorf("reading the part of %s that is sent already: %w", r.path, err)
	}
	if last[0] != '\n' {
		old.Lines-- // the file went on: what follows is the rest of that line
	}
	r.pos, r.res.Resumed, r.res.Changed = old, true, false
	return nil
}

// during reads until its context ends.
type during struct {
	ctx context.Context
	io.Reader
}

func (d during) Read(b []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	return d.Reader.Read(b)
}

// batch produces up to importBatch lines and moves the position behind them.
// At the end of the file it moves nothing.
func (r *importing) batch(ctx context.Context, lines *bufio.Reader) error {
	byPartition := make([][]consumer.Message, r.Partitions)
	for range importBatch {
		line, err := readLine(lines)
		if len(line) == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: line %d: %w", r.path, r.pos.Lines+1, err)
		}
		r.sent.Write(line)
		r.pos.Bytes += int64(len(line))
		r.pos.Lines++
		value := bytes.Clone(bytes.TrimSpace(line))
		if len(value) == 0 {
			continue
		}
		key, err := r.Parse(value)
		if err != nil {
			if !r.Skip {
				return fmt.Errorf("%s: line %d: %w", r.path, r.pos.Lines, err)
			}
			r.res.Bad++
			if r.OnBad != nil {
				r.OnBad(r.pos.Lines, err)
			}
			continue
		}
		p := schemas.Partition(key, r.Partitions)
		byPartition[p] = append(byPartition[p], consumer.Message{Key: key, Value: value, Time: time.Now()})
	}
	r.pos.SHA256 = hex.EncodeToString(r.sent.Sum(nil))
	for p, messages := range byPartition {
		if len(messages) == 0 {
			continue
		}
		if _, err := r.Client.Produce(ctx, r.Topic, int32(p), messages); err != nil {
			return fmt.Errorf("producing lines up to %d of %s to %s[%d]: %w", r.pos.Lines, r.path, r.Topic, p, err)
		}
		r.res.Produced += len(messages)
	}
	return nil
}

// readLine returns a line with its end, valid until the next one is read. The
// last one comes with io.EOF where nothing ends it.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return readLong(line, r)
	}
	return line, err
}

// readLong reads on a line that is longer than the reader's buffer.
func readLong(head []byte, r *bufio.Reader) ([]byte, error) {
	line := bytes.Clone(head)
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("is longer than %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// positionFile names where the import of path is remembered.
func (im *Import) positionFile(path string) (string, error) {
	return importFile(im.StateDir, im.Topic, path, ".json")
}

// importFile names what is remembered of an import of a source to a target.
func importFile(stateDir, target, source, extension string) (string, error) {
	abs, err := filepath.Abs(source)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", source, err)
	}
	dir := filepath.Join(stateDir, "imports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("state.dir: %w", err)
	}
	sum := sha256.Sum256([]byte(target + "\x00" + abs))
	return filepath.Join(dir, hex.EncodeToString(sum[:8])+extension), nil
}

func readPosition(file string) (p importPosition, ok bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return p, false
	}
	return p, json.Unmarshal(b, &p) == nil
}

func writePosition(file string, p importPosition) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
