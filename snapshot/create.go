package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
)

// Compression of the record batches.
type Compression string

// Compressions. The empty string is Zstd.
const (
	Zstd Compression = "zstd"
	None Compression = "none" // half as large again or more, but any Arrow reader maps it without a codec
)

// Options of Create, Verify and Restore. The zero value is ready.
type Options struct {
	Compression Compression             // of Create; "" is Zstd
	Now         func() time.Time        // clock of CreatedAt and the directory's name; nil is time.Now
	Progress    func(done, total int64) // called about every 8,192 rows by Create (in rows), every MiB by Verify and Restore (in bytes); total 0 is unknown; nil is not called
}

func (o Options) withDefaults() (Options, error) {
	switch o.Compression {
	case "":
		o.Compression = Zstd
	case Zstd, None:
	default:
		return o, fmt.Errorf("compression: %q is neither %s nor %s", o.Compression, Zstd, None)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o, nil
}

const (
	metaFormat     = "rebeca.format"
	metaCreated    = "rebeca.created_at"
	metaDim        = "rebeca.dim"
	metaPartitions = "rebeca.partitions"
	metaOffsets    = "rebeca.offsets"
)

// Create writes a snapshot of src as a new directory below dir, which it makes if need be, and returns its manifest;
// the directory is filepath.Join(dir, m.Name). It is complete and durable when Create returns, or not there: a crash
// or a cancelled ctx leaves at most a hidden directory, which the next Create removes. Memory does not grow with the state.
//
// Errors: ErrBusy while another Create writes to dir, *AheadError if the checkpoint has seen more than the cut,
// ctx.Err(), and what src and the file system return.
func Create(ctx context.Context, dir string, src Source, o Options) (Manifest, error) {
	return create(ctx, osDisk{}, dir, src, o)
}

func create(ctx context.Context, d disk, dir string, src Source, o Options) (m Manifest, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return Manifest{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Manifest{}, fmt.Errorf("creating the directory of snapshots: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return Manifest{}, err
	}
	defer unlock()
	if err := sweep(d, dir); err != nil {
		return Manifest{}, err
	}
	created := o.Now().UTC().Truncate(time.Microsecond)
	name := "snap-" + created.Format("20060102T150405.000000Z")
	w := &writer{ctx: ctx, disk: d, dir: filepath.Join(dir, tempPrefix+name), o: o}
	w.m = Manifest{Format: Format, Name: name, CreatedAt: created, Offsets: []Offset{}}
	defer func() {
		if err != nil {
			d.RemoveAll(w.dir)
		}
	}()
	if err := w.write(src); err != nil {
		return Manifest{}, err
	}
	return w.m, w.publish(filepath.Join(dir, name))
}

// writer fills one hidden directory.
type writer struct {
	ctx  context.Context
	disk disk
	dir  string
	o    Options
	m    Manifest

	done, total int64
}

func (w *writer) write(src Source) error {
	if err := w.disk.Mkdir(w.dir); err != nil {
		return fmt.Errorf("creating the snapshot's directory: %w", err)
	}
	checkpoint, born, err := src.Checkpoint()
	if err != nil {
		return fmt.Errorf("naming a checkpoint: %w", err)
	}
	var weights *os.File
	if born {
		// Open now: the trainer may drop the file while the state is being written, but not the open bytes.
		if weights, err = os.Open(checkpoint.Path); err != nil {
			return fmt.Errorf("opening the checkpoint: %w", err)
		}
		defer weights.Close()
		w.m.Prior = &Prior{
			Version: checkpoint.Version, Topic: checkpoint.Topic, Cursor: checkpoint.Cursor,
			File: path.Join(priorFolder, filepath.Base(checkpoint.Path)),
		}
	}
	if err := src.Export(w.cut); err != nil {
		return err
	}
	if born {
		return w.copyPrior(weights)
	}
	return nil
}

// cut writes the tables from one read timestamp.
func (w *writer) cut(c Cut) error {
	layout := c.Layout()
	offsets, err := c.Offsets()
	if err != nil {
		return fmt.Errorf("reading offsets: %w", err)
	}
	w.m.Dim, w.m.VectorDim, w.m.Partitions = layout.Dim, layout.VectorDim, layout.Partitions
	w.m.Offsets = append(w.m.Offsets, offsets...)
	if layout.Users > 0 && layout.Keys > 0 {
		w.total = layout.Users + layout.Keys
	}
	if w.m.Prior != nil {
		if err := w.m.Prior.behind(offsets); err != nil {
			return err
		}
	}
	meta, err := w.metadata()
	if err != nil {
		return err
	}
	if err := w.users(c, meta); err != nil {
		return err
	}
	return w.state(c, meta)
}

func (w *writer) metadata() (arrow.Metadata, error) {
	offsets, err := json.Marshal(w.m.Offsets)
	if err != nil {
		return arrow.Metadata{}, fmt.Errorf("encoding offsets: %w", err)
	}
	return arrow.NewMetadata(
		[]string{metaFormat, metaCreated, metaDim, metaPartitions, metaOffsets},
		[]string{strconv.Itoa(Format), w.m.CreatedAt.Format(time.RFC3339Nano), strconv.Itoa(w.m.Dim), strconv.Itoa(int(w.m.Partitions)), string(offsets)},
	), nil
}

func (w *writer) users(c Cut, meta arrow.Metadata) error {
	s, err := newSheet(w.disk, filepath.Join(w.dir, usersFile), usersFile, userFields(w.m.VectorDim), meta, w.o.Compression)
	if err != nil {
		return err
	}
	users := userSheet{sheet: s, vectorDim: w.m.VectorDim, zero: make([]float32, max(1, w.m.VectorDim))}
	err = c.Users(func(u User) error {
		if err := w.step(); err != nil {
			return err
		}
		return users.append(u)
	})
	if err != nil {
		s.abandon()
		return err
	}
	f, err := s.close()
	w.m.Files, w.m.Users = append(w.m.Files, f), f.Rows
	return err
}

func (w *writer) state(c Cut, meta arrow.Metadata) error {
	s, err := newSheet(w.disk, filepath.Join(w.dir, stateFile), stateFile, stateFields, meta, w.o.Compression)
	if err != nil {
		return err
	}
	state := stateSheet{sheet: s, limit: maxValue, digest: NewDigest()}
	err = c.Each(func(key, value []byte) error {
		if err := w.step(); err != nil {
			return err
		}
		return state.append(key, value)
	})
	if err != nil {
		s.abandon()
		return err
	}
	f, err := s.close()
	w.m.Files, w.m.Keys, w.m.StateHash = append(w.m.Files, f), f.Rows, state.digest.Sum()
	return err
}

// step counts a row, and now and then looks up.
func (w *writer) step() error {
	if w.done%maxBatchRows == 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		w.o.Progress(w.done, max(w.total, 0))
	}
	w.done++
	return nil
}

func (w *writer) copyPrior(weights io.Reader) error {
	folder := filepath.Join(w.dir, priorFolder)
	if err := w.disk.Mkdir(folder); err != nil {
		return fmt.Errorf("creating %s: %w", priorFolder, err)
	}
	s, err := newSink(w.disk, filepath.Join(w.dir, filepath.FromSlash(w.m.Prior.File)), w.m.Prior.File)
	if err != nil {
		return err
	}
	if _, err := io.Copy(s, contextReader{w.ctx, weights}); err != nil {
		s.f.Close()
		return fmt.Errorf("copying the checkpoint: %w", err)
	}
	f, err := s.finish(0)
	if err != nil {
		return err
	}
	w.m.Files = append(w.m.Files, f)
	if err := w.disk.SyncDir(folder); err != nil {
		return fmt.Errorf("syncing %s: %w", priorFolder, err)
	}
	return nil
}

// publish writes the manifest and gives the directory its name: the two steps that make it a snapshot.
func (w *writer) publish(target string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	data, err := w.m.encode()
	if err != nil {
		return err
	}
	if err := w.m.validate(); err != nil {
		return fmt.Errorf("source gives a snapshot that could not be read back: %w", err)
	}
	s, err := newSink(w.disk, filepath.Join(w.dir, manifestFile), manifestFile)
	if err != nil {
		return err
	}
	if _, err := s.Write(data); err != nil {
		s.f.Close()
		return fmt.Errorf("writing %s: %w", manifestFile, err)
	}
	if _, err := s.finish(0); err != nil {
		return err
	}
	if err := w.disk.SyncDir(w.dir); err != nil {
		return fmt.Errorf("syncing the snapshot: %w", err)
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("naming the snapshot: %s exists", target)
	}
	if err := w.disk.Rename(w.dir, target); err != nil {
		return fmt.Errorf("naming the snapshot: %w", err)
	}
	if err := w.disk.SyncDir(filepath.Dir(target)); err != nil {
		return fmt.Errorf("syncing the directory of snapshots: %w", err)
	}
	w.o.Progress(w.done, w.done)
	return nil
}

// contextReader ends a copy when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
