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
// remembers under StateDir how far it came, so that the same call goes on
// after an interruption.
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
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime_ns"`
	Bytes int64  `json:"bytes"` // acknowledged
	Lines int    `json:"lines"`
}

// Run imports the file. A line that does not parse ends it with the line's
// number, unless Skip is set.
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
	remember, err := im.positionFile(path)
	if err != nil {
		return res, err
	}
	pos := importPosition{Topic: im.Topic, Size: info.Size(), Mtime: info.ModTime().UnixNano()}
	if old, ok := readPosition(remember); ok && old.Topic == pos.Topic && old.Size == pos.Size && old.Mtime == pos.Mtime {
		if old.Bytes >= old.Size {
			return res, fmt.Errorf("%s has been imported to %s before (remove %s to do it again)", path, im.Topic, remember)
		}
		pos, res.Resumed = old, old.Bytes > 0
	}
	if _, err := f.Seek(pos.Bytes, io.SeekStart); err != nil {
		return res, fmt.Errorf("resuming %s at byte %d: %w", path, pos.Bytes, err)
	}
	if im.Progress == nil {
		im.Progress = func(done, total int64) {}
	}
	im.Progress(pos.Bytes, pos.Size)
	r := bufio.NewReaderSize(f, 1<<20)
	for pos.Bytes < info.Size() {
		if err := im.batch(ctx, r, path, &pos, &res); err != nil {
			return res, err
		}
		if err := writePosition(remember, pos); err != nil {
			return res, fmt.Errorf("remembering the position of the import: %w", err)
		}
		im.Progress(pos.Bytes, pos.Size)
	}
	return res, nil
}

// batch produces up to importBatch lines and moves pos behind them.
func (im *Import) batch(ctx context.Context, r *bufio.Reader, path string, pos *importPosition, res *ImportResult) error {
	byPartition := make([][]consumer.Message, im.Partitions)
	n := 0
	for ; n < importBatch; n++ {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if line, err = readLong(line, r); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("%s: line %d: %w", path, pos.Lines+1, err)
			}
		}
		if len(line) == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		pos.Bytes += int64(len(line))
		pos.Lines++
		value := bytes.Clone(bytes.TrimSpace(line))
		if len(value) == 0 {
			continue
		}
		key, err := im.Parse(value)
		if err != nil {
			if !im.Skip {
				return fmt.Errorf("%s: line %d: %w", path, pos.Lines, err)
			}
			res.Bad++
			if im.OnBad != nil {
				im.OnBad(pos.Lines, err)
			}
			continue
		}
		p := schemas.Partition(key, im.Partitions)
		byPartition[p] = append(byPartition[p], consumer.Message{Key: key, Value: value, Time: time.Now()})
	}
	for p, messages := range byPartition {
		if len(messages) == 0 {
			continue
		}
		if _, err := im.Client.Produce(ctx, im.Topic, int32(p), messages); err != nil {
			return fmt.Errorf("producing lines up to %d of %s to %s[%d]: %w", pos.Lines, path, im.Topic, p, err)
		}
		res.Produced += len(messages)
	}
	return nil
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
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", path, err)
	}
	dir := filepath.Join(im.StateDir, "imports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("state.dir: %w", err)
	}
	sum := sha256.Sum256([]byte(im.Topic + "\x00" + abs))
	return filepath.Join(dir, hex.EncodeToString(sum[:8])+".json"), nil
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
