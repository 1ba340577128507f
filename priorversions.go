package rebeca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"rebeca/online"
	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

// PriorVersions lists the checkpoints of the state by falling number, of a
// stopped service or beside a running one.
func PriorVersions(c Config) ([]online.Version, error) {
	return online.List(c.priorDir())
}

// PriorPromoted says what a promotion of weights did, or would do in a dry run.
type PriorPromoted struct {
	From    online.Version `json:"from"`
	Version string         `json:"version,omitempty"` // the new one; "" in a dry run
	Number  int64          `json:"number,omitempty"`
	Hold    string         `json:"hold"`    // how long no later version takes its place
	Running bool           `json:"running"` // a running service did it
}

// PlanPromotePrior returns what [PromotePrior] would make current. number 0
// stands for the version before the one in use.
func PlanPromotePrior(c Config, number int64, hold time.Duration) (p PriorPromoted, err error) {
	versions, err := PriorVersions(c)
	if err != nil {
		return p, err
	}
	if number == 0 {
		if number, err = online.Before(versions); err != nil {
			return p, err
		}
	}
	i := slices.IndexFunc(versions, func(v online.Version) bool { return v.Number == number })
	switch {
	case i < 0:
		return p, fmt.Errorf("%w: %d in %s (`rebeca prior list` shows them)", online.ErrNoVersion, number, c.priorDir())
	case versions[i].Damage != "":
		return p, fmt.Errorf("version %d is damaged: %s", number, versions[i].Damage)
	}
	return PriorPromoted{From: versions[i], Hold: hold.String()}, nil
}

// PromotePrior makes an earlier checkpoint the version in use, under a new
// number, and for hold no later one takes its place; number 0 is as in
// [PlanPromotePrior]. Where a service runs on the state it does it, announced
// when this returns; else the next start announces it.
func PromotePrior(ctx context.Context, c Config, number int64, hold time.Duration, log *slog.Logger) (PriorPromoted, error) {
	p, err := PlanPromotePrior(c, number, hold)
	if err != nil {
		return p, err
	}
	var v schemas.PriorVersion
	switch held, err := c.OpenTable(slog.New(slog.DiscardHandler)); {
	case err == nil:
		defer held.Close()
	case errors.Is(err, table.ErrLocked):
		p.Running = true
	case !errors.Is(err, ErrNoState): // without a state there is no service on it
		return p, err
	}
	if p.Running {
		v, err = promoteRunning(ctx, c, p.From.Number, hold)
	} else {
		v, err = online.Promote(c.priorDir(), p.From.Number, hold, log)
	}
	p.Version, p.Number = v.Version, v.Number
	return p, err
}

func promoteRunning(ctx context.Context, c Config, number int64, hold time.Duration) (v schemas.PriorVersion, err error) {
	body, err := askRunning(ctx, c, http.MethodPost, "/v1/prior/"+strconv.FormatInt(number, 10)+"/promote?hold="+url.QueryEscape(hold.String()))
	if err != nil {
		return v, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&v); err != nil {
		return v, fmt.Errorf("reading the running service's answer: %w", err)
	}
	return v, nil
}

// PromotePrior implements [web.Operator].
func (s *Service) PromotePrior(ctx context.Context, number int64, hold time.Duration) (any, error) {
	if s.trainer == nil {
		return nil, &web.Error{Code: web.CodeNotFound, Message: "no trainer runs here: ask the process that has its role"}
	}
	v, err := s.trainer.Promote(ctx, number, hold)
	switch {
	case errors.Is(err, online.ErrNoVersion):
		return nil, &web.Error{Code: web.CodeNotFound, Message: err.Error()}
	case errors.Is(err, online.ErrNotLearning):
		return nil, &web.Error{Code: web.CodeNoPrior, Message: err.Error()}
	case err != nil:
		return nil, fmt.Errorf("promoting version %d: %w", number, err)
	}
	return v, nil
}
