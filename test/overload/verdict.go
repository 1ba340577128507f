package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"rebeca/internal/figures"
)

// point is the service at a moment.
type point struct {
	at                time.Time
	capped            bool
	anonymous, mapped int64 // bytes
	status
}

// curve is what was seen over time.
type curve struct{ points []point }

// look adds a point.
func (c *curve) look(ctx context.Context, r *rig, capped bool) (status, error) {
	st, err := r.status(ctx)
	if err != nil {
		return st, err
	}
	anonymous, mapped, err := memory(r.service.PID())
	if err != nil {
		return st, err
	}
	c.points = append(c.points, point{time.Now(), capped, anonymous, mapped, st})
	return st, nil
}

func (c *curve) tell(w io.Writer) {
	p := c.points[len(c.points)-1]
	fmt.Fprintf(w, "%5.0fs anonymous %d MiB, %d behind, %d folded, %d images, %d steps, %d skipped\n", p.at.Sub(c.points[0].at).Seconds(),
		p.anonymous>>20, p.lag(), p.EventsFolded, p.Generated, p.Step, p.Overload.StepsSkipped)
}

func (c *curve) csv() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "seconds,capped,anonymous_bytes,mapped_bytes,lag_fold,events_folded,generated,step,steps_skipped,intents_superseded,feedback_unanswered")
	for _, p := range c.points {
		capped := 0
		if p.capped {
			capped = 1
		}
		o := p.Overload
		fmt.Fprintf(&b, "%.1f,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d\n", p.at.Sub(c.points[0].at).Seconds(), capped, p.anonymous, p.mapped, p.lag(),
			p.EventsFolded, p.Generated, p.Step, o.StepsSkipped, o.IntentsSuperseded, o.FeedbackUnanswered)
	}
	return b.Bytes()
}

// plot draws anonymous memory as bars of text, a line for every so many points.
func (c *curve) plot() string {
	const lines, width = 30, 60
	var most int64 = 1
	for _, p := range c.points {
		most = max(most, p.anonymous)
	}
	var b strings.Builder
	for i := 0; i < len(c.points); i += max(1, len(c.points)/lines) {
		p := c.points[i]
		mark := "capped"
		if !p.capped {
			mark = "lifted"
		}
		fmt.Fprintf(&b, "%5.0fs %s %9d behind %5d MiB %s\n", p.at.Sub(c.points[0].at).Seconds(), mark, p.lag(), p.anonymous>>20,
			strings.Repeat("#", int(p.anonymous*width/most)))
	}
	return b.String()
}

// peaks returns the most anonymous memory in the second quarter of the flood, when it is warm, and in the last one.
func (out *outcome) peaks() (early, late int64) {
	flood := out.curve.points[:out.liftedAt]
	n := len(flood)
	for i, p := range flood {
		switch {
		case i >= n/4 && i < n/2:
			early = max(early, p.anonymous)
		case i >= n*3/4:
			late = max(late, p.anonymous)
		}
	}
	return early, late
}

func (out *outcome) peak() (most int64) {
	for _, p := range out.curve.points {
		most = max(most, p.anonymous)
	}
	return most
}

const (
	// growShare is how much more anonymous memory the end of a flood may have than its second quarter, beside the plan's slack: what
	// garbage collection leaves to chance. A queue of what came in between would be larger.
	growShare = 1.25
	// capShare is how far above the cap a flood may be folded: what the bucket holds and what was at hand when it began.
	capShare = 1.1
)

// judge names the promises that were broken.
func (out *outcome) judge(p plan) (faults []string) {
	broken := func(yes bool, format string, args ...any) {
		if yes {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	folded := out.flooded.EventsFolded - out.before.EventsFolded
	seconds := out.floodFor.Seconds()
	broken(float64(folded) > capShare*float64(p.cap)*seconds+float64(p.cap)/2, "%d events were folded in %.1f s, the cap is %d/s", folded, seconds, p.cap)
	broken(float64(folded) < .3*float64(p.cap)*seconds, "only %d events were folded in %.1f s, the cap is %d/s", folded, seconds, p.cap)
	n := len(out.curve.points[:out.liftedAt])
	broken(out.curve.points[n-1].lag() <= out.curve.points[n/2].lag(), "the lag did not grow: %d, then %d", out.curve.points[n/2].lag(), out.curve.points[n-1].lag())
	o := out.flooded.Overload
	broken(o.StepsSkipped == out.before.Overload.StepsSkipped, "no training step was skipped")
	broken(o.FeedbackUnanswered == 0, "no image that nobody asked for was shed")
	// What waited is made by then: only requests are left.
	late := out.curve.points[n-1].EventsFolded - out.curve.points[n*3/4].EventsFolded
	images := out.curve.points[n-1].Generated - out.curve.points[n*3/4].Generated
	broken(images > late/5, "%d images were made in the last quarter, of %d events: they are not shed", images, late)
	broken(out.flooded.Generated-out.before.Generated >= folded, "%d images for %d events: nothing coalesced", out.flooded.Generated-out.before.Generated, folded)
	early, last := out.peaks()
	broken(float64(last) > growShare*float64(early)+float64(p.slack), "anonymous memory grew from %d MiB to %d MiB", early>>20, last>>20)
	broken(out.digest != out.want, "the facts' digest is %s, an uncapped fold of the log says %s", out.digest, out.want)
	wrong := 0
	for user, want := range out.people {
		if out.rows[user] != want {
			wrong++
		}
	}
	broken(wrong > 0 || len(out.rows) != len(out.people), "%d rows of %d are wrong, there are %d", wrong, len(out.people), len(out.rows))
	broken(out.outputs.duplicate > 0, "%d ids are on generated twice", out.outputs.duplicate)
	unanswered := 0
	for i := range out.asked {
		if out.outputs.answers[fmt.Sprintf("r%d", i+1)] != 1 {
			unanswered++
		}
	}
	broken(unanswered > 0, "%d of %d requests are not answered once", unanswered, out.asked)
	return faults
}

func (out *outcome) figures(p plan, faults int) figures.Figures {
	early, late := out.peaks()
	folded := float64(out.flooded.EventsFolded - out.before.EventsFolded)
	o := out.flooded.Overload
	return figures.Figures{
		"broken_promises": float64(faults), "events": float64(out.sent), "flood_s": out.floodFor.Seconds(),
		"sent_events_per_s": float64(out.sent) / out.floodFor.Seconds(), "cap_events_per_s": float64(p.cap),
		"folded_events_per_s": folded / out.floodFor.Seconds(), "lag_at_end": float64(out.liftedLag),
		"anonymous_second_quarter_mib": float64(early) / (1 << 20), "anonymous_last_quarter_mib": float64(late) / (1 << 20),
		"anonymous_peak_mib": float64(out.peak()) / (1 << 20),
		"steps_taken":        float64(out.flooded.Step - out.before.Step), "steps_skipped": float64(o.StepsSkipped),
		"images":             float64(out.flooded.Generated - out.before.Generated),
		"intents_superseded": float64(o.IntentsSuperseded), "feedback_unanswered": float64(o.FeedbackUnanswered),
		"requests": float64(out.asked), "users": float64(len(out.people)),
		"lifted_s": out.liftedFor.Seconds(), "lifted_events_per_s": float64(out.liftedLag) / out.liftedFor.Seconds(),
		"outputs": float64(out.outputs.ids), "duplicate_ids": float64(out.outputs.duplicate),
	}
}
