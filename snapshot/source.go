package snapshot

import "time"

// Source is what Create reads: a live table and the newest durable checkpoint of the prior.
type Source interface {
	// Checkpoint names a durable checkpoint, or reports false while no prior is born. Create asks for it, and opens
	// its file, before it asks for the cut: events are folded before they are trained on, so a checkpoint that
	// existed first cannot be ahead of a cut that was taken second.
	Checkpoint() (Checkpoint, bool, error)

	// Export calls fn once with a view of one read timestamp. The view is valid until fn returns. The error of fn is
	// returned as it is.
	Export(fn func(Cut) error) error
}

// Checkpoint is a prior's weights on disk and how far in the log they were trained.
type Checkpoint struct {
	Path    string          // file to copy; its base name is kept
	Version string          // announced version, "" if it was never announced
	Topic   string          // the topic that Cursor counts in
	Cursor  map[int32]int64 // next offset to train on, by partition of Topic
}

// Cut is a consistent view of a table. Its methods are called one after another, from one goroutine. Slices handed to
// a callback may be reused after it returns.
type Cut interface {
	Layout() Layout
	// Offsets lists the next offset to read of every topic and partition the table follows.
	Offsets() ([]Offset, error)
	// Users calls fn for every user in key order.
	Users(fn func(User) error) error
	// Each calls fn for every key of the state, in key order, whatever its prefix: what it leaves out is not restored.
	Each(fn func(key, value []byte) error) error
}

// Layout is what a state was born with.
type Layout struct {
	Dim        int   // length of an item's embedding
	Partitions int32 // partitions of the user-keyed topics
	VectorDim  int   // length of a user's embedding, 0 while no user has one
	Users      int64 // number of users and of keys, for progress alone; 0 means unknown
	Keys       int64
}

// Offset is a position in one partition of one topic.
type Offset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"` // first offset the state has not seen
}

// User is one row of the readable table.
type User struct {
	Partition    int32
	UserID       string
	Events       uint64
	Positives    uint64
	Negatives    uint64
	Window       []Entry   // newest first, then older likes
	Vector       []float32 // the user's embedding, nil if there is none; of another length than Layout.VectorDim it is left out here
	PriorVersion string    // version Vector was made with
}

// Entry is one event of a window.
type Entry struct {
	ItemID     string
	Class      string
	Kind       string
	OccurredAt time.Time
	Offset     int64
	Older      bool // from the reservoir of older likes
}
