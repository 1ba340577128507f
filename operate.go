package rebeca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"rebeca/consumer"
	"rebeca/snapshot"
	"rebeca/table"
	"rebeca/web"
)

// The operator's door of a running service: what the verbs do when the state
// is in use.

// Inspect implements [web.Operator].
func (s *Service) Inspect(what string, w io.Writer) error {
	return Inspect(s.table, s.config.Kafka.Topics, what, w)
}

// Snapshot implements [web.Operator].
func (s *Service) Snapshot(ctx context.Context, partitions string) (any, error) {
	some, err := ParsePartitions(partitions)
	if err != nil {
		return nil, &web.Error{Code: web.CodeBadRequest, Message: "partitions: " + err.Error()}
	}
	if err := s.guard.room(s.table.Size()); err != nil {
		return nil, fmt.Errorf("creating a snapshot: %w", err)
	}
	return CreateSnapshot(ctx, s.config, s.table, some, s.log, snapshot.Options{})
}

// InspectRunning asks the service that holds the state.
func InspectRunning(ctx context.Context, c Config, what string, w io.Writer) error {
	body, err := askRunning(ctx, c, http.MethodGet, "/v1/inspect/"+what)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("reading the running service's answer: %w", err)
	}
	return nil
}

// SnapshotRunning has the service that holds the state write a snapshot.
func SnapshotRunning(ctx context.Context, c Config, partitions Partitions) (m snapshot.Manifest, err error) {
	path := "/v1/snapshots"
	if len(partitions) > 0 {
		path += "?partitions=" + url.QueryEscape(partitions.String())
	}
	body, err := askRunning(ctx, c, http.MethodPost, path)
	if err != nil {
		return m, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&m); err != nil {
		return m, fmt.Errorf("reading the running service's answer: %w", err)
	}
	return m, nil
}

func askRunning(ctx context.Context, c Config, method, path string) (io.ReadCloser, error) {
	if c.HTTP.Listen == "" {
		return nil, errors.New("the state is in use and the service has no http.listen to ask: stop it first")
	}
	token, err := c.httpToken()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.HTTP.Listen+path, nil)
	if err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the state is in use, and asking the service that holds it: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // what there is of it is shown
	return nil, fmt.Errorf("the running service answered %s: %s", resp.Status, text)
}

// ErrNoState means that state.dir holds no table; test with errors.Is.
var ErrNoState = errors.New("no state is there")

// OpenTable opens the table of a stopped service for an operator's verb. Unlike
// the service it makes none: a directory without one is ErrNoState. It takes the
// rules that the state was born with. Other errors are those of [table.Open]. The
// caller closes the table.
func (c Config) OpenTable(log *slog.Logger) (*table.Table, error) {
	if err := c.finishPromotion(); err != nil {
		return nil, err
	}
	switch files, err := os.ReadDir(c.tableDir()); {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(files) == 0:
		return nil, fmt.Errorf("state.dir: %w: %s has no table of a service", ErrNoState, c.State.Dir)
	case err != nil:
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	o := c.TableOptions(log)
	o.AnyRules = true // verbs look, and do not fold
	return c.openState(o)
}

// ResetPrior deletes the announcement on the prior topic and sets the
// checkpoints aside. It says what it did, or would do in a dry run. The
// service must be stopped: its trainer would announce again and its worker go
// on with the old weights. The state's lock is held meanwhile, and an error
// that is [table.ErrLocked] means a service that runs on it; one that runs on
// another state and the same topics is not seen.
func ResetPrior(ctx context.Context, c Config, dryRun bool) (done []string, err error) {
	dir := c.priorDir()
	aside := dir + "-" + time.Now().UTC().Format("20060102T150405")
	plan := []string{fmt.Sprintf("delete the announcement on topic %s", c.Kafka.Topics.Prior)}
	if exists(dir) {
		plan = append(plan, fmt.Sprintf("move %s to %s", dir, aside))
	}
	if dryRun {
		return plan, nil
	}
	switch held, err := c.OpenTable(slog.New(slog.DiscardHandler)); {
	case err == nil:
		defer held.Close()
	case errors.Is(err, table.ErrLocked):
		return nil, fmt.Errorf("%w: stop the service first", err)
	case !errors.Is(err, ErrNoState): // without a state there is no service on it
		return nil, err
	}
	client, err := c.NewClient()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	pingCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := client.Ping(pingCtx); err != nil {
		return nil, fmt.Errorf("kafka.brokers: %w", err)
	}
	tombstone := consumer.Message{Key: []byte(priorKey), Time: time.Now()}
	if _, err := client.Produce(ctx, c.Kafka.Topics.Prior, 0, []consumer.Message{tombstone}); err != nil {
		return nil, fmt.Errorf("deleting the announcement: %w", err)
	}
	if exists(dir) {
		if err := os.Rename(dir, filepath.Clean(aside)); err != nil {
			return plan[:1], fmt.Errorf("setting checkpoints aside: %w", err)
		}
	}
	return plan, nil
}
