package web

import (
	"encoding/json"
	"slices"
	"time"
)

// beat is a status at a moment, as pages get it.
type beat struct {
	At     int64  `json:"at"` // Unix milliseconds
	Status Status `json:"status"`
}

func beatOf(now time.Time, s Status) beat { return beat{now.UnixMilli(), s} }

// point is one moment of the plots; null where a number is not known.
type point struct {
	At         int64    `json:"at"` // Unix milliseconds
	LikedShare *float64 `json:"liked_share"`
	BaseRate   *float64 `json:"base_rate"`
	P50        *float64 `json:"p50"` // event to image, milliseconds
	P99        *float64 `json:"p99"`
	Loss       *float64 `json:"loss"`
	Version    int64    `json:"version"`
}

// historySize bounds the plots: ten minutes by the second, then coarser.
const historySize = 600

// history keeps the plots of the whole run in bounded memory: when it is full, every other point
// goes and from then on half as many come.
type history struct {
	ring  []point
	every int // beats a point; 0 means 1
	beats int // since the last point
}

func (h *history) add(now time.Time, s Status) {
	h.every = max(h.every, 1)
	if h.beats++; h.beats < h.every {
		return
	}
	h.beats = 0
	p := point{At: now.UnixMilli(), LikedShare: finite(s.LikedShare), BaseRate: finite(s.BaseRate), Loss: finite(s.Loss), Version: s.PriorNumber}
	if q := s.EventToImage; q != nil {
		p.P50, p.P99 = finite(&q.P50), finite(&q.P99)
	}
	if h.ring = append(h.ring, p); len(h.ring) < historySize {
		return
	}
	for i := range historySize / 2 {
		h.ring[i] = h.ring[2*i]
	}
	h.ring = h.ring[:historySize/2]
	h.beats = h.every // the point just taken fell out: the next one is half a new step away
	h.every *= 2
}

func (h *history) points() json.RawMessage {
	body, err := json.Marshal(append([]point{}, h.ring...))
	if err != nil {
		return json.RawMessage("[]")
	}
	return slices.Clip(body)
}
