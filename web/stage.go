package web

import "slices"

const (
	stageSize  = 12
	stageQueue = 64 // distinct active users remembered as candidates for the stage
)

// stage decides whom the gallery shows. Places are stable: a person keeps theirs until it is the
// oldest one and a rotation comes, so a page can be read while it lives.
type stage struct {
	slots  []string // user by place
	oldest int      // the place that rotates next
	recent []string // active users that are not on the stage, newest last
}

func newStage() stage { return stage{} }

// active notes that a user did or got something. joined is true when that gave them a free place.
func (s *stage) active(userID string) (slot int, joined bool) {
	if s.has(userID) {
		return 0, false
	}
	if len(s.slots) < stageSize {
		s.slots = append(s.slots, userID)
		return len(s.slots) - 1, true
	}
	if i := slices.Index(s.recent, userID); i >= 0 {
		s.recent = slices.Delete(s.recent, i, i+1)
	} else if len(s.recent) == stageQueue {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.recent = append(s.recent, userID)
	return 0, false
}

func (s *stage) has(userID string) bool { return slices.Contains(s.slots, userID) }

// rotate gives the oldest place to the most recently active candidate.
func (s *stage) rotate() (slot int, userID string, changed bool) {
	if len(s.recent) == 0 {
		return 0, "", false
	}
	slot, userID = s.oldest, s.recent[len(s.recent)-1]
	s.recent = s.recent[:len(s.recent)-1]
	s.slots[slot] = userID
	s.oldest = (s.oldest + 1) % stageSize
	return slot, userID, true
}

// places returns the users by place.
func (s *stage) places() []string { return slices.Clone(s.slots) }
