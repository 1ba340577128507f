package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// kind is a kind of fault; its text is a key of the figures.
type kind string

// Kinds of faults.
const (
	wrongRow    kind = "wrong_rows"
	wrongOffset kind = "wrong_offsets"
	wrongLetter kind = "wrong_deadletters"
	wrongVector kind = "wrong_vectors"
	duplicate   kind = "duplicate_ids"
	unexpected  kind = "unexpected_outputs"
	lost        kind = "lost"        // a cause without its outputs, a bad record without its dead letter
	lostByLog   kind = "lost_by_log" // acknowledged to the producer and not in the log: the broker's fault
	died        kind = "died"        // a process ended by itself
	stuck       kind = "stuck"       // a process did not become ready, or never came to rest
)

var faultKinds = []kind{wrongRow, wrongOffset, wrongLetter, wrongVector, duplicate, unexpected, lost, lostByLog, died, stuck}

// fault is a difference between what is and what must be.
type fault struct {
	kind kind
	text string
}

func (f fault) String() string { return string(f.kind) + ": " + f.text }

func (o *oracle) fault(k kind, format string, args ...any) {
	o.faults = append(o.faults, fault{k, fmt.Sprintf(format, args...)})
}

// state is what the services say they hold of their partitions, by `inspect`.
type state struct {
	services int // each reads all of the catalogue
	users    []inspectedUser
	offsets  []inspectedOffset
	outbox   []inspectedOutgoing
}

type inspectedUser struct {
	User       string           `json:"user_id"`
	Partition  int32            `json:"partition"`
	Events     uint64           `json:"events"`
	Positives  uint64           `json:"positives"`
	Negatives  uint64           `json:"negatives"`
	LastEvents []inspectedEvent `json:"last_events"`
	OlderLikes []inspectedEvent `json:"older_likes"`
	LastOffset int64            `json:"last_offset"`
	EventIDs   int              `json:"event_ids"`
	EventHash  string           `json:"event_hash"`
	Version    *string          `json:"prior_version"`
}

type inspectedEvent struct {
	Item   string    `json:"item_id"`
	Kind   string    `json:"kind"`
	Class  string    `json:"class"`
	At     time.Time `json:"occurred_at"`
	Offset int64     `json:"offset"`
}

type inspectedOutgoing struct {
	Partition int32  `json:"partition"`
	Kind      string `json:"kind"`
	Key       string `json:"key"`
}

type inspectedOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`
}

// checkState compares facts and offsets with the log's.
func (o *oracle) checkState(s state) (faults []fault) {
	bad := func(k kind, format string, args ...any) {
		faults = append(faults, fault{k, fmt.Sprintf(format, args...)})
	}
	held := map[string]bool{}
	for _, u := range s.users {
		if held[u.User] {
			bad(wrongRow, "user %q has two rows", u.User)
		}
		held[u.User] = true
		p := o.people[u.User]
		if p == nil || p.events == 0 {
			bad(wrongRow, "user %q has a row and no event: %+v", u.User, u)
			continue
		}
		if got, want := row(u), p.row(u.User, o.partitions); got != want {
			bad(wrongRow, "user %q\n  is   %s\n  must %s", u.User, got, want)
		}
	}
	for user, p := range o.people {
		if p.events > 0 && !held[user] {
			bad(wrongRow, "user %q has %d events and no row", user, p.events)
		}
	}
	followed := 0
	for _, at := range s.offsets {
		followed++
		if next, ok := o.log.next[at.Topic]; !ok || next[at.Partition] != at.Next {
			bad(wrongOffset, "%s[%d] is read to %d, the log ends at %d", at.Topic, at.Partition, at.Next, next[at.Partition])
		}
	}
	if want := (2 + s.services) * o.partitions; followed != want {
		bad(wrongOffset, "%d offsets, must be %d", followed, want)
	}
	if len(s.outbox) > 0 {
		bad(lost, "%d in the outbox of a service that says it has published all, the first is %+v", len(s.outbox), s.outbox[0])
	}
	return faults
}

// row writes all that must be equal: counts, the window's entries in their order, and the ring of event ids.
func row(u inspectedUser) string {
	return fmt.Sprint(u.Partition, u.Events, u.Positives, u.Negatives, u.LastOffset, u.LastEvents, u.OlderLikes, u.EventIDs, u.EventHash)
}

func (p *person) row(user string, partitions int) string {
	shown := func(entries []entry) []inspectedEvent {
		out := make([]inspectedEvent, len(entries))
		for i, e := range entries {
			out[i] = inspectedEvent{e.item, e.kind, e.class, e.at, e.offset}
		}
		return out
	}
	return row(inspectedUser{
		Partition: partitionOf([]byte(user), partitions), Events: p.events, Positives: p.positives, Negatives: p.negatives, LastOffset: p.last,
		LastEvents: shown(p.newest), OlderLikes: shown(p.older), EventIDs: len(p.ring), EventHash: ringHash(p.ring),
	})
}

// checkOutputs looks for what should have been published by a service at rest.
func (o *oracle) checkOutputs() (faults []fault) {
	bad := func(k kind, format string, args ...any) {
		faults = append(faults, fault{k, fmt.Sprintf(format, args...)})
	}
	for from, want := range o.rotten {
		if _, ok := o.letters[from]; !ok {
			bad(lost, "no dead letter for %+v, which is %s", from, want.reason)
		}
	}
	for user, p := range o.people {
		if p.lastFresh == nil {
			continue
		}
		if missing := o.missing(*p.lastFresh, o.perEvent); missing > 0 {
			bad(lost, "%d of %d images of the newest event of %q, %+v", missing, o.perEvent, user, *p.lastFresh)
		}
	}
	for from := range o.open {
		c := o.causes[from]
		missing := o.missing(from, c.images)
		// A forget takes unsent answers along, and topics have no common order: within a round either may be first.
		if missing > 0 && o.person(c.user).forgotten != c.round+1 {
			bad(lost, "%d of %d answers to the request %q of %q, %+v", missing, c.images, c.request, c.user, from)
		}
	}
	return faults
}

// settle forgets which requests of this round are to be looked at again.
func (o *oracle) settle() {
	clear(o.open)
	o.round++
}

func (o *oracle) missing(from source, images int) (n int) {
	for k := range images {
		if _, ok := o.outputs[outputID(from, k)]; !ok {
			n++
		}
	}
	return n
}

// checkVectors compares the last vector of each user with the facts. A state
// that goes on from a snapshot does not make again what was made of the same
// events since: the topic may then hold the vector of a version that the state
// before had come to.
func (o *oracle) checkVectors(users []inspectedUser) (faults []fault) {
	bad := func(format string, args ...any) {
		faults = append(faults, fault{wrongVector, fmt.Sprintf(format, args...)})
	}
	for user, v := range o.vectors {
		if p := o.people[user]; v != nil && (p == nil || p.events == 0) {
			bad("%q has no row, its last vector is of %d events", user, v.Events)
		}
	}
	for _, u := range users {
		switch v := o.vectors[u.User]; {
		case v == nil:
			bad("%q has %d events and no vector", u.User, u.Events)
		case v.Events != u.Events:
			bad("the vector of %q is of %d events, its row of %d", u.User, v.Events, u.Events)
		case u.Version == nil:
			bad("the vector of %q is of version %s, the table has none", u.User, v.Version)
		case *u.Version != v.Version && !o.moved:
			bad("the vector of %q is of version %s, the table's of %s", u.User, v.Version, *u.Version)
		}
	}
	return faults
}

// checkLog looks for what the broker acknowledged to the producer in this round and does not hold.
func (o *oracle) checkLog(acknowledged map[source]uint32) (faults []fault) {
	for at, sum := range acknowledged {
		if got, ok := o.seen[at]; !ok || got != sum {
			faults = append(faults, fault{lostByLog, fmt.Sprintf("%+v was acknowledged; the log holds it: %t", at, ok)})
		}
	}
	return faults
}

// sorted orders faults by kind and text, so that the same state reads the same.
func sorted(faults []fault) []fault {
	slices.SortFunc(faults, func(a, b fault) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.text, b.text)) })
	return faults
}

// count adds faults to figures by kind.
func count(into map[string]float64, faults []fault) {
	for _, k := range faultKinds {
		into[string(k)] += 0
	}
	for _, f := range faults {
		into[string(f.kind)]++
	}
}

// kindsOf lists the kinds among faults with their numbers.
func kindsOf(faults []fault) string {
	n := map[kind]int{}
	for _, f := range faults {
		n[f.kind]++
	}
	text := ""
	for _, k := range slices.Sorted(maps.Keys(n)) {
		text += fmt.Sprintf(" %d %s", n[k], k)
	}
	return text
}
