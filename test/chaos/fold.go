package main

import (
	"cmp"
	"slices"
	"time"
)

// rules of the fold, as they stand in the configuration of the services.
type rules struct {
	newest, liked int // entries of the window
	dedupe        int // event ids remembered per user
	requests      int // request ids remembered per user
}

// entry is one event of a window.
type entry struct {
	item, kind, class string
	at                time.Time // when it was, in milliseconds
	offset            int64
	hash              uint64
}

// person is what the log says of a user.
type person struct {
	events, positives, negatives uint64
	last                         int64    // offset of the newest event
	newest, older                []entry  // the oldest first
	ring                         []string // the last distinct event ids, in order of first arrival
	accepted                     []int64  // offsets of the events of this life
	lastFresh                    *source  // the newest event of this life that asks for an image
	asked                        []string // the last distinct request ids
	until                        time.Time
	forgotten                    int // rounds of the last forget + 1; 0 for never
}

// class returns what an event says of its item; "" for nothing.
func class(e event) string {
	value := 0.0
	if e.value != nil {
		value = *e.value
	}
	switch e.kind {
	case "like", "share", "save":
		return "strong_positive"
	case "click":
		return "weak_positive"
	case "dislike", "hide":
		return "strong_negative"
	case "skip":
		return "weak_negative"
	case "view":
		if value >= 10 {
			return "weak_positive"
		}
	case "rating":
		switch {
		case value >= 4:
			return "strong_positive"
		case value <= 2:
			return "strong_negative"
		}
		return "weak_negative"
	}
	return ""
}

// remember enters an id in a ring of distinct ids; it reports whether the id was there.
func remember(ring *[]string, id string, size int) bool {
	if slices.Contains(*ring, id) {
		return true
	}
	*ring = append(*ring, id)
	if over := len(*ring) - size; over > 0 {
		*ring = slices.Clone((*ring)[over:])
	}
	return false
}

// fold applies an event and reports whether it counted.
func (p *person) fold(r rules, e event, offset int64) bool {
	if !e.at.After(p.until) || remember(&p.ring, e.id, r.dedupe) {
		return false
	}
	p.events++
	p.last = offset
	p.accepted = append(p.accepted, offset)
	if e.kind == "undo" {
		of := func(x entry) bool { return x.item == e.item }
		p.newest, p.older = slices.DeleteFunc(p.newest, of), slices.DeleteFunc(p.older, of)
		return true
	}
	c := class(e)
	switch c {
	case "":
		return true
	case "strong_positive", "weak_positive":
		p.positives++
	default:
		p.negatives++
	}
	p.newest = append(p.newest, entry{e.item, e.kind, c, e.at.UTC().Truncate(time.Millisecond), offset, eventHash(e.id)})
	if len(p.newest) <= r.newest {
		return true
	}
	left := p.newest[0]
	p.newest = slices.Delete(p.newest, 0, 1)
	if left.class == "strong_positive" {
		p.older = append(p.older, left)
		p.thin(r.liked)
	}
	return true
}

// thin keeps the older likes with the smallest hashes. Of equal ones, an event sent again from beyond the ring, the newer leaves.
func (p *person) thin(keep int) {
	if len(p.older) <= keep {
		return
	}
	largest := slices.MaxFunc(p.older, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.offset, b.offset))
	})
	at := slices.IndexFunc(p.older, func(e entry) bool { return e.offset == largest.offset })
	p.older = slices.Delete(p.older, at, at+1)
}

// forget begins another life.
func (p *person) forget(at time.Time, round int) {
	if at.Before(p.until) { // a producer's clock may go back; the mark only rises
		at = p.until
	}
	*p = person{until: at, forgotten: round + 1}
}
