package snapshot

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Format is the version of the layout this package writes, and the only one it reads.
	Format = 1

	manifestFile = "manifest.json"
	usersFile    = "users.arrow"
	stateFile    = "state.arrow"
	priorFolder  = "prior"

	// maxManifest bounds what is read of a manifest: a snapshot of 10,000 partitions needs under 2 MiB.
	maxManifest = 16 << 20
)

// ErrFormat is returned for a snapshot written in a format this package does not read.
var ErrFormat = errors.New("unknown snapshot format")

// Manifest says what a snapshot holds. It is the last file written: a directory without one is not a snapshot.
type Manifest struct {
	Format     int       `json:"format"`
	Name       string    `json:"name"` // directory it was created as, below the directory of snapshots
	CreatedAt  time.Time `json:"created_at"`
	Dim        int       `json:"dim"`
	VectorDim  int       `json:"vector_dim"` // 0: no user had an embedding
	Partitions int32     `json:"partitions"`
	Offsets    []Offset  `json:"offsets"`
	Prior      *Prior    `json:"prior"` // null: no prior was born
	Users      int64     `json:"users"`
	Keys       int64     `json:"keys"`
	StateHash  string    `json:"state_sha256"` // see Digest
	Files      []File    `json:"files"`
}

// Prior is the checkpoint that travels with the state.
type Prior struct {
	Version string          `json:"version"`
	File    string          `json:"file"`
	Topic   string          `json:"topic"`
	Cursor  map[int32]int64 `json:"cursor"`
}

// File is one file of a snapshot. Rows is 0 for files that are not tables.
type File struct {
	Name   string `json:"name"` // slash-separated, relative to the snapshot
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Size is the number of bytes of all files, the manifest not counted.
func (m Manifest) Size() int64 {
	var n int64
	for _, f := range m.Files {
		n += f.Bytes
	}
	return n
}

// DecodeManifest reads a manifest strictly: unknown keys, trailing data, unsafe file names and counts that contradict
// each other are errors; another format is ErrFormat.
func DecodeManifest(data []byte) (Manifest, error) {
	var head struct {
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", err)
	}
	if head.Format == nil {
		return Manifest{}, errors.New("decoding manifest: format: missing")
	}
	if *head.Format != Format {
		return Manifest{}, fmt.Errorf("decoding manifest: format %d, this version reads %d: %w", *head.Format, Format, ErrFormat)
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Manifest{}, errors.New("decoding manifest: data after the object")
	}
	if err := m.validate(); err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", err)
	}
	return m, nil
}

func (m Manifest) encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	return append(data, '\n'), nil
}

func (m Manifest) validate() error {
	switch {
	case m.CreatedAt.IsZero():
		return errors.New("created_at: missing")
	case m.Dim <= 0:
		return fmt.Errorf("dim: %d is not positive", m.Dim)
	case m.VectorDim < 0:
		return fmt.Errorf("vector_dim: %d is negative", m.VectorDim)
	case m.Partitions <= 0:
		return fmt.Errorf("partitions: %d is not positive", m.Partitions)
	case !isHash(m.StateHash):
		return fmt.Errorf("state_sha256: %q is not 64 hex digits", m.StateHash)
	}
	if err := validateOffsets(m.Offsets); err != nil {
		return err
	}
	rows, err := validateFiles(m.Files)
	if err != nil {
		return err
	}
	for name, want := range map[string]int64{usersFile: m.Users, stateFile: m.Keys} {
		got, ok := rows[name]
		if !ok {
			return fmt.Errorf("files: %s is missing", name)
		}
		if got != want {
			return fmt.Errorf("files: %s has %d rows where the manifest counts %d", name, got, want)
		}
	}
	if m.Prior != nil {
		if _, ok := rows[m.Prior.File]; !ok || path.Dir(m.Prior.File) != priorFolder {
			return fmt.Errorf("prior.file: %q is not one of the files below %s/", m.Prior.File, priorFolder)
		}
		return m.Prior.behind(m.Offsets)
	}
	return nil
}

func validateOffsets(offsets []Offset) error {
	type place struct {
		topic     string
		partition int32
	}
	seen := make(map[place]bool, len(offsets))
	for i, o := range offsets {
		p := place{o.Topic, o.Partition}
		switch {
		case o.Topic == "" || o.Partition < 0 || o.Next < 0:
			return fmt.Errorf("offsets[%d]: %q/%d at %d is not a position", i, o.Topic, o.Partition, o.Next)
		case seen[p]:
			return fmt.Errorf("offsets[%d]: %s/%d is listed twice", i, o.Topic, o.Partition)
		}
		seen[p] = true
	}
	return nil
}

func validateFiles(files []File) (rows map[string]int64, err error) {
	rows = make(map[string]int64, len(files))
	for i, f := range files {
		_, twice := rows[f.Name]
		switch {
		case !safeName(f.Name):
			return nil, fmt.Errorf("files[%d].name: %q is not a path inside the snapshot", i, f.Name)
		case twice:
			return nil, fmt.Errorf("files[%d].name: %s is listed twice", i, f.Name)
		case f.Rows < 0 || f.Bytes < 0:
			return nil, fmt.Errorf("files[%d]: %s has a negative count", i, f.Name)
		case !isHash(f.SHA256):
			return nil, fmt.Errorf("files[%d].sha256: %q is not 64 hex digits", i, f.SHA256)
		}
		rows[f.Name] = f.Rows
	}
	return rows, nil
}

// safeName tells whether a file name stays inside its snapshot on every system.
func safeName(name string) bool {
	return name != manifestFile && path.Clean(name) == name && name != "." && filepath.IsLocal(name) &&
		!strings.ContainsAny(name, "\\:\x00")
}

func isHash(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 32
}

// behind says why a checkpoint may not travel with these offsets: a cursor beyond the cut means that weights have
// seen events which the restored table has not folded, and the tail would teach them twice.
func (p Prior) behind(offsets []Offset) error {
	next := make(map[int32]int64)
	for _, o := range offsets {
		if o.Topic == p.Topic {
			next[o.Partition] = o.Next
		}
	}
	for partition, cursor := range p.Cursor {
		if cursor > next[partition] {
			return &AheadError{Topic: p.Topic, Partition: partition, Cursor: cursor, Next: next[partition]}
		}
	}
	return nil
}

// AheadError is returned where a checkpoint was trained on events that the cut does not hold.
type AheadError struct {
	Topic     string
	Partition int32
	Cursor    int64 // next offset the checkpoint would train on
	Next      int64 // next offset the cut would fold
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("checkpoint is ahead of the state: %s/%d trained up to %d, folded up to %d", e.Topic, e.Partition, e.Cursor, e.Next)
}
