package rebeca

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

// InspectedUser is a row of the table, one JSON line each.
type InspectedUser struct {
	UserID     string           `json:"user_id"`
	Partition  int32            `json:"partition"`
	Events     uint64           `json:"events"`
	Positives  uint64           `json:"positives"`
	Negatives  uint64           `json:"negatives"`
	LastEvents []InspectedEvent `json:"last_events"` // the newest part of the window, newest last
	OlderLikes []InspectedEvent `json:"older_likes"`
	LastOffset int64            `json:"last_offset"` // of the last feedback folded
	EventIDs   int              `json:"event_ids"`   // how many ids of events are remembered, by which resends are known
	EventHash  string           `json:"event_hash"`  // of these ids in their order: FNV-1a over their hashes
	VectorNorm *float64         `json:"vector_norm"` // null before there is a vector
	VectorHash *string          `json:"vector_hash"` // of its bits: equal vectors have equal ones
	Prior      *string          `json:"prior_version"`
}

// InspectedEvent is an entry of a window.
type InspectedEvent struct {
	ItemID     string       `json:"item_id"`
	Kind       schemas.Kind `json:"kind"`
	Class      string       `json:"class"`
	OccurredAt time.Time    `json:"occurred_at"` // in milliseconds
	Offset     int64        `json:"offset"`
}

// InspectedOffset is how far a partition of a topic is folded.
type InspectedOffset struct {
	Topic       string `json:"topic"`
	Partition   int32  `json:"partition"`
	Next        int64  `json:"next"`
	Fingerprint string `json:"fingerprint"` // of the last record folded, 16 hex digits
	// Gaps are the newest breaks of the log that were accepted, of GapCount ever.
	Gaps     []InspectedGap `json:"gaps,omitempty"`
	GapCount uint64         `json:"gap_count,omitempty"`
}

// InspectedGap is a break of the log that was accepted: gap, recreated, other
// record, or begin where the log no longer began at 0 at the first start.
type InspectedGap struct {
	Kind string    `json:"kind"`
	From int64     `json:"from"` // was to be read next
	To   int64     `json:"to"`   // was read next
	At   time.Time `json:"at"`
}

// InspectedDigest is all facts in one number, and the offsets they are of.
type InspectedDigest struct {
	SHA256  string            `json:"sha256"` // over all facts in key order: equal for the same log and rules
	Users   int               `json:"users"`
	Offsets []InspectedFolded `json:"offsets"` // of the feedback topic
}

// InspectedFolded is how far a partition of the feedback topic is folded.
type InspectedFolded struct {
	Partition int32 `json:"partition"`
	Next      int64 `json:"next"`
}

// InspectedOutgoing is something waiting in the outbox.
type InspectedOutgoing struct {
	Partition int32  `json:"partition"`
	Seq       uint64 `json:"seq"`
	Kind      string `json:"kind"`            // intent, generated, vectors, deadletter
	Begun     bool   `json:"begun,omitempty"` // an intent that is being worked on
	Key       string `json:"key"`
	ID        string `json:"id,omitempty"`
	Bytes     int    `json:"bytes,omitempty"`
}

// Inspect writes a part of the state (users, offsets, outbox or digest) as JSON
// lines.
func Inspect(t *table.Table, topics TopicConfig, what string, w io.Writer) error {
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	var err error
	switch what {
	case "users":
		err = t.Users(func(r table.Row) error { return inspectUser(t, r, enc) })
	case "offsets":
		err = inspectOffsets(t, topics, enc)
	case "outbox":
		err = inspectOutbox(t, enc)
	case "digest":
		err = inspectDigest(t, topics, enc)
	default:
		return fmt.Errorf("%q is not one of %s", what, strings.Join(web.Inspectable, ", "))
	}
	if err != nil {
		return fmt.Errorf("inspecting %s: %w", what, err)
	}
	return buf.Flush()
}

func inspectUser(t *table.Table, r table.Row, enc *json.Encoder) error {
	v, ok, err := t.VectorOf(r.UserID)
	if err != nil {
		return err
	}
	if !ok {
		return enc.Encode(inspected(r, nil))
	}
	return enc.Encode(inspected(r, &v))
}

// inspected shows a row and its vector, nil for none.
func inspected(r table.Row, v *table.Vector) InspectedUser {
	u := InspectedUser{
		UserID: r.UserID, Partition: r.Partition, Events: r.Events, Positives: r.Positives, Negatives: r.Negatives,
		LastOffset: r.LastOffset, EventIDs: len(r.Seen), EventHash: hashOf(r.Seen), LastEvents: []InspectedEvent{}, OlderLikes: []InspectedEvent{},
	}
	for _, e := range slices.Backward(r.Window) {
		in := InspectedEvent{ItemID: e.ItemID, Kind: e.Kind, Class: e.Class.String(), OccurredAt: e.OccurredAt.UTC(), Offset: e.Offset}
		if e.Older {
			u.OlderLikes = append(u.OlderLikes, in)
		} else {
			u.LastEvents = append(u.LastEvents, in)
		}
	}
	if v != nil {
		norm, hash := vectorNorm(v.Values), vectorHash(v.Values)
		u.VectorNorm, u.VectorHash, u.Prior = &norm, &hash, &v.PriorVersion
	}
	return u
}

func vectorHash(values []float32) string {
	bits := make([]uint32, len(values))
	for i, v := range values {
		bits[i] = math.Float32bits(v)
	}
	return hashOf(bits)
}

// hashOf is FNV-1a over numbers in little-endian, 16 hex digits.
func hashOf[N uint32 | uint64](numbers []N) string {
	h := fnv.New64a()
	if err := binary.Write(h, binary.LittleEndian, numbers); err != nil {
		panic("rebeca: hashing numbers: " + err.Error())
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// inspectDigest reads facts and offsets as of one moment.
func inspectDigest(t *table.Table, topics TopicConfig, enc *json.Encoder) error {
	out := InspectedDigest{Offsets: []InspectedFolded{}}
	err := t.Export(func(c table.Cut) (err error) {
		positions, err := c.Positions()
		if err != nil {
			return err
		}
		for _, p := range positions {
			if p.Topic == topics.Feedback {
				out.Offsets = append(out.Offsets, InspectedFolded{p.Partition, p.Next})
			}
		}
		out.Users = t.UserCount()
		out.SHA256, err = c.Digest()
		return err
	})
	if err != nil {
		return err
	}
	return enc.Encode(out)
}

func inspectOffsets(t *table.Table, topics TopicConfig, enc *json.Encoder) error {
	for _, topic := range []string{topics.Items, topics.Feedback, topics.Requests} {
		for p := range t.Partitions() {
			next, fingerprint, ok, err := t.Offset(topic, p)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			gaps, total, err := t.Gaps(topic, p)
			if err != nil {
				return err
			}
			out := InspectedOffset{Topic: topic, Partition: p, Next: next, Fingerprint: fmt.Sprintf("%016x", fingerprint), GapCount: total}
			for _, g := range gaps {
				out.Gaps = append(out.Gaps, InspectedGap(g))
			}
			if err := enc.Encode(out); err != nil {
				return err
			}
		}
	}
	return nil
}

// inspectOutbox writes what waits, each kind at a moment of its own: an intent that is answered meanwhile is seen with its messages.
func inspectOutbox(t *table.Table, enc *json.Encoder) error {
	for p := range t.Partitions() {
		for _, of := range []struct {
			intents func(int32) ([]table.Intent, error)
			begun   bool
		}{{t.Begun, true}, {t.Intents, false}} {
			intents, err := of.intents(p)
			if err != nil {
				return err
			}
			for _, in := range intents {
				if err := enc.Encode(InspectedOutgoing{Partition: p, Seq: in.Seq, Kind: "intent", Key: in.UserID, ID: in.ID, Begun: of.begun}); err != nil {
					return err
				}
			}
		}
		if err := t.EachUnsent(p, func(m table.Outgoing) error {
			return enc.Encode(InspectedOutgoing{Partition: p, Seq: m.Seq, Kind: m.Role, Key: string(m.Key), Bytes: len(m.Value)})
		}); err != nil {
			return err
		}
	}
	return nil
}
