package images

import (
	"container/list"
	"sync"
)

// Recent keeps the pictures of late that have no object, the newest up to a number of bytes. It is safe for concurrent use.
type Recent struct {
	limit int

	mu    sync.Mutex
	order list.List // guarded by mu; of *recent, the newest first
	by    map[Sum]*list.Element
	bytes int // guarded by mu
}

type recent struct {
	user string
	file File
}

// NewRecent keeps at most limit bytes.
func NewRecent(limit int) *Recent { return &Recent{limit: limit, by: map[Sum]*list.Element{}} }

// Add keeps a user's file, whose bytes are the callee's from now on.
func (r *Recent) Add(user string, f File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by[f.Sum] != nil || len(f.Data) > r.limit {
		return
	}
	r.by[f.Sum] = r.order.PushFront(&recent{user, f})
	for r.bytes += len(f.Data); r.bytes > r.limit; {
		r.drop(r.order.Back())
	}
}

// Get returns a file; its bytes are read only.
func (r *Recent) Get(sum Sum) (File, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.by[sum]
	if e == nil {
		return File{}, false
	}
	return e.Value.(*recent).file, true
}

// Drop lets go of a file.
func (r *Recent) Drop(sum Sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.by[sum]; e != nil {
		r.drop(e)
	}
}

// Forget lets go of a user's files.
func (r *Recent) Forget(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.order.Front(); e != nil; {
		next := e.Next()
		if e.Value.(*recent).user == user {
			r.drop(e)
		}
		e = next
	}
}

// drop removes an entry; r.mu is held.
func (r *Recent) drop(e *list.Element) {
	f := r.order.Remove(e).(*recent).file
	delete(r.by, f.Sum)
	r.bytes -= len(f.Data)
}
