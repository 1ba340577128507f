package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"rebeca/internal/process"
)

// plan is what a run does.
type plan struct {
	rate, cap int // events sent, records folded, a second
	duration  time.Duration
	every     time.Duration // between two points of the curve
	users     int
	items     int
	trainLag  int   // train.max_lag, 0 for the default
	padding   int   // bytes of each event that nobody reads: a queue of events then shows sooner
	slack     int64 // bytes of anonymous memory that caches may still take in the second half of the flood
	dir       string
	binary    string
	say       io.Writer
}

// Limits of what may take long on a busy machine.
const (
	warmLimit  = 2 * time.Minute
	drainLimit = time.Hour
)

// outcome is what a run saw.
type outcome struct {
	curve           curve
	before, flooded status // when the flood began and ended
	floodFor        time.Duration
	liftedAt        int64         // index of the first point after the cap was lifted
	liftedFor       time.Duration // until everything was folded and published
	liftedLag       int64         // records behind when the cap was lifted
	people          map[string]person
	rows            map[string]person
	sent            int64
	asked           int
	outputs         outputs
	digest, want    string
}

// run floods a capped service, lifts the cap, and reads what is there then.
func run(ctx context.Context, p plan) (out outcome, err error) {
	r, err := newRig(ctx, p)
	if r != nil {
		defer r.stop()
	}
	if err != nil {
		return out, err
	}
	s, err := newSender(p, r.broker)
	if err != nil {
		return out, err
	}
	defer s.client.Close()
	if err := warm(ctx, r, s); err != nil {
		return out, err
	}
	if err := out.flood(ctx, r, s); err != nil {
		return out, err
	}
	if err := out.lift(ctx, r); err != nil {
		return out, err
	}
	out.people, out.sent, out.asked = s.people, s.sent, s.asked
	return out, out.read(ctx, r)
}

// warm brings the service to where it folds, learns and publishes.
func warm(ctx context.Context, r *rig, s *sender) error {
	s.catalogue(ctx)
	for range 500 {
		s.event(ctx, time.Now())
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, warmLimit)
	defer cancel()
	return process.Until(ctx, "the service is at rest with a prior", func() (bool, error) {
		st, err := r.status(ctx)
		return err == nil && st.PriorVersion != "" && st.rest(), err
	})
}

// flood sends and watches.
func (out *outcome) flood(ctx context.Context, r *rig, s *sender) (err error) {
	if out.before, err = r.status(ctx); err != nil {
		return err
	}
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- s.flood(ctx, r.rate, r.duration) }()
	for {
		select {
		case err := <-done:
			out.floodFor = time.Since(start)
			if err != nil {
				return err
			}
			out.flooded, err = out.curve.look(ctx, r, true)
			return err
		case <-time.After(r.every):
			if _, err := out.curve.look(ctx, r, true); err != nil {
				<-done
				return err
			}
			out.curve.tell(r.say)
		}
	}
}

// lift restarts the service without a cap and waits until nothing is left to do.
func (out *outcome) lift(ctx context.Context, r *rig) error {
	if err := r.end(); err != nil {
		return err
	}
	if err := r.configure(0); err != nil {
		return err
	}
	out.liftedAt, out.liftedLag = int64(len(out.curve.points)), out.flooded.lag()
	start := time.Now()
	if err := r.start(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	for {
		st, err := out.curve.look(ctx, r, false)
		if err != nil {
			return err
		}
		if st.rest() {
			out.liftedFor = time.Since(start)
			return nil
		}
		out.curve.tell(r.say)
		select {
		case <-time.After(r.every):
		case <-ctx.Done():
			return fmt.Errorf("waiting until everything is folded: %w; %d records are left", ctx.Err(), st.lag())
		}
	}
}

// read takes the rows and outputs, then folds the log once more without a cap.
func (out *outcome) read(ctx context.Context, r *rig) error {
	if err := r.end(); err != nil {
		return err
	}
	body, err := r.verb(ctx, "inspect", "users", "--json", "-c", r.config())
	if err != nil {
		return err
	}
	out.rows = map[string]person{}
	for line := range bytes.Lines(body) {
		var row struct {
			User                         string `json:"user_id"`
			Events, Positives, Negatives int64
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return fmt.Errorf("reading a row: %w (%.100q)", err, line)
		}
		out.rows[row.User] = person{row.Events, row.Positives, row.Negatives}
	}
	if out.outputs, err = readOutputs(ctx, r.broker); err != nil {
		return err
	}
	again := r.dir + "/again"
	if _, err := r.verb(ctx, "replay", "--from", "earliest", "--to", "latest", "--into", again, "-c", r.config()); err != nil {
		return err
	}
	if out.want, err = r.digest(ctx, again); err != nil {
		return err
	}
	out.digest, err = r.digest(ctx, r.state())
	return err
}

// digest returns the SHA-256 over the facts of a state.
func (r *rig) digest(ctx context.Context, state string) (string, error) {
	body, err := r.verb(ctx, "inspect", "digest", "-c", r.config(), "--state", state)
	if err != nil {
		return "", err
	}
	var d struct {
		SHA256 string `json:"sha256"`
	}
	if err := json.Unmarshal(body, &d); err != nil || d.SHA256 == "" {
		return "", fmt.Errorf("reading a digest: %w (%.200q)", err, body)
	}
	return d.SHA256, nil
}
