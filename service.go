package rebeca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rebeca/consumer"
	"rebeca/eval/shapes"
	"rebeca/internal/ort"
	"rebeca/online"
	"rebeca/online/people"
	"rebeca/sampler"
	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

const (
	// startTimeout bounds the first answer of the brokers.
	startTimeout = 5 * time.Second
	// drainTimeout bounds how long a stopping service goes on sending what it
	// has made; the outbox keeps the rest.
	drainTimeout = 10 * time.Second
	// collectEvery is how often the table looks for disk space to give back.
	collectEvery = time.Minute
	// busyLag is how many records behind the fold is busy: the trainer then
	// leaves it the larger part of the cores.
	busyLag = 5000
)

// Options are what a Service needs beside its configuration.
type Options struct {
	Logger   *slog.Logger         // required
	Registry *prometheus.Registry // required
	// Version is the build's, for /v1/status.
	Version     string
	outboxLimit int // in tests; 0 means the constant
	// Free returns the bytes free where a directory is; nil asks the system.
	Free        func(dir string) (int64, error)
	intentLimit int // in tests; 0 means the constant
	// World tells the gallery the truth about simulated people; nil in a real service.
	World Truth
	// OnPublished is called with what the broker acknowledged, in order within
	// a partition, from the partition's relay; it must not block. Nil: nobody.
	OnPublished func(partition int32, out []table.Outgoing, at time.Time)
	// Prepare is called once the door listens and before anything is read: the
	// demo fills its catalogue there. Nil: nothing to prepare.
	Prepare func(ctx context.Context) error
}

// Truth is a controlled world as the gallery sees it.
type Truth interface {
	web.World
	web.Pictures
	web.Explorer
	// Shares returns the recent share of liked images and the base rate; nil
	// while there is none.
	Shares() (liked, base *float64)
}

// Service is the whole of it: worker, trainer and door over one table. Use
// [New], then [Service.Run] once.
type Service struct {
	config  Config
	options Options
	log     *slog.Logger
	metrics *metrics

	client    *consumer.Client
	table     *table.Table
	registry  *registry        // nil without one
	decoder   *sampler.Decoder // nil without one
	pictures  *pictures        // nil without a decoder or without the worker's role
	progress  *progress
	generator *generator      // nil without the worker's role
	follower  *follower       // nil without the worker's role
	fit       *guidanceFit    // nil unless worker and trainer are one process
	trainer   *online.Trainer // nil without the trainer's role
	door      *door
	server    *web.Server // nil when http.listen is empty
	room      *outboxRoom
	sending   sending
	guard     *guard
	overload  *overload
	worker    *worker
	items     *catalogueReader
	train     []*consumer.Partition // the trainer's loops, by partition; none without its role
	lease     time.Duration         // claimLease, shorter in tests
	heartbeat time.Duration         // of a group's member; 0 for its default, shorter in tests

	mu         sync.Mutex
	shards     map[int32]*shard // guarded by mu; the partitions in hand
	assigned   bool             // guarded by mu; it is known which partitions these are
	stopped    map[string]error // guarded by mu; stopped partitions by topic[partition], and the trainer
	neighbours map[int32]string // guarded by mu; URLs of other partitions' owners
	leading    consumer.Claim   // guarded by mu; the trainer's, when it was committed last
	serving    chan struct{}    // closed when the HTTP door listens
}

// New returns a service that has done nothing yet. The configuration must be
// valid.
func New(c Config, o Options) *Service {
	g, t := newGuard(c, o.Free, o.Logger), c.Kafka.Topics
	o.Registry.MustRegister(g.collectors()...)
	return &Service{
		guard: g, config: c, options: o, log: o.Logger, metrics: newMetrics(o.Registry, t.Items, t.Feedback, t.Requests),
		progress: newProgress(c.Kafka.Partitions), items: newCatalogueReader(c.Kafka.Partitions), lease: claimLease,
		shards: map[int32]*shard{}, stopped: map[string]error{}, serving: make(chan struct{}),
	}
}

// NewClient returns a client for the configured brokers.
func (c Config) NewClient() (*consumer.Client, error) {
	o := consumer.Options{Brokers: c.Kafka.Brokers, ClientID: "rebeca", TLS: c.Kafka.TLS}
	if s := c.Kafka.SASL; s.Mechanism != "" {
		password, err := firstLine("kafka.sasl.password_file", s.PasswordFile)
		if err != nil {
			return nil, err
		}
		o.SASL = consumer.SASL{Mechanism: strings.ToUpper(s.Mechanism), Username: s.Username, Password: password}
	}
	return consumer.NewClient(o)
}

// WantedTopics are the topics of the configuration as they must be.
func (c Config) WantedTopics() []consumer.Topic {
	n, t := c.Kafka.Partitions, c.Kafka.Topics
	// A source lets through what is far too large, so that it comes back with a
	// reason; a dead letter holds such a record and says why.
	source, large := map[string]string{"max.message.bytes": "8388608"}, map[string]string{"max.message.bytes": "9437184"}
	return []consumer.Topic{
		{Name: t.Items, Partitions: n, Compacted: true, Config: source},
		{Name: t.Feedback, Partitions: n, Config: source},
		{Name: t.Requests, Partitions: n, Config: source},
		{Name: t.Generated, Partitions: n, Config: large},
		{Name: t.Vectors, Partitions: n, Compacted: true},
		{Name: t.Prior, Partitions: 1, Compacted: true},
		{Name: t.DeadLetter, Partitions: n, Config: large},
	}
}

// TableOptions are the options under which the configuration's table opens. A
// trainer alone folds what a worker elsewhere folds too; dead letters and
// tombstones are the worker's to send.
func (c Config) TableOptions(log *slog.Logger) table.Options {
	return table.Options{
		Dir: c.tableDir(), Partitions: int32(c.Kafka.Partitions), Dim: c.Prior.Dim, Rules: c.rules(), Logger: log,
		Silent: !c.has(RoleWorker),
	}
}

// OpenRuntime loads ONNX Runtime from where the configuration says and checks
// that it has the execution provider.
func (c Config) OpenRuntime() error {
	path, err := ort.Locate(c.ONNXRuntime.Library)
	if err != nil {
		return err
	}
	if err := ort.Open(path); err != nil {
		return err
	}
	if err := ort.Check(c.RuntimeOptions()); err != nil {
		return fmt.Errorf("onnxruntime.provider: %w", err)
	}
	return nil
}

// OpenDecoder opens the configured decoder; nil for none.
func (c Config) OpenDecoder() (*sampler.Decoder, error) {
	var files fs.FS
	manifest := "manifest.json"
	switch m := c.Decoder.Manifest; m {
	case "none":
		return nil, nil
	case "shapes":
		files = shapes.Codec()
	default:
		files, manifest = ort.Folder(filepath.Dir(m)), filepath.Base(m)
	}
	d, err := sampler.OpenDecoder(files, manifest, c.RuntimeOptions())
	if err != nil {
		return nil, fmt.Errorf("decoder.manifest: %s: %w", c.Decoder.Manifest, err)
	}
	if d.Dim() != c.Prior.Dim {
		return nil, errors.Join(fmt.Errorf("decoder.manifest: the decoder reads %d dimensions, prior.dim is %d", d.Dim(), c.Prior.Dim), d.Close())
	}
	return d, nil
}

// Serving is closed once the HTTP door listens; it stays open without one.
func (s *Service) Serving() <-chan struct{} { return s.serving }

// URL is the door's address after Serving is closed.
func (s *Service) URL() string { return "http://" + s.server.Addr() }

// Run serves until ctx ends, then drains and returns nil. Any other end is an
// error that names what failed and what to do.
func (s *Service) Run(ctx context.Context) (err error) {
	if err := s.open(ctx); err != nil {
		if ctx.Err() != nil {
			err = nil // told to stop before it had begun
		}
		return errors.Join(err, s.close())
	}
	defer func() { err = errors.Join(err, s.close()) }()

	intake, intakeCtx := errgroup.WithContext(ctx)
	if s.server != nil {
		intake.Go(func() error { return s.server.Run(intakeCtx) })
	}
	intake.Go(func() error {
		if prepare := s.options.Prepare; prepare != nil {
			if err := prepare(intakeCtx); err != nil {
				return err
			}
		}
		s.startIntake(intakeCtx, intake)
		return nil
	})
	return orEnded(ctx, intake.Wait())
}

// open brings up everything that can fail for an outside reason, in the order
// in which an operator would look: broker, topics, state, library, decoder.
func (s *Service) open(ctx context.Context) (err error) {
	c := s.config
	token, err := c.httpToken()
	if err != nil {
		return err
	}
	if c.HTTP.Listen != "" {
		if err := web.CheckListen(c.HTTP.Listen, token); err != nil {
			return fmt.Errorf("http.listen: %w", err)
		}
	}
	if s.client, err = c.NewClient(); err != nil {
		return err
	}
	if s.registry, err = c.newRegistry(s.log); err != nil {
		return err
	}
	pingCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.client.Ping(pingCtx); err != nil {
		return fmt.Errorf("kafka.brokers: %w", err)
	}
	if err := consumer.CheckTopics(pingCtx, s.client, c.WantedTopics()); err != nil {
		return err
	}
	if err := c.OpenRuntime(); err != nil {
		return err
	}
	if s.table, err = c.openState(c.TableOptions(s.log)); err != nil {
		return err
	}
	if s.decoder, err = c.OpenDecoder(); err != nil {
		return err
	}
	s.options.Registry.MustRegister(s.erasureGauge())
	if s.decoder != nil && c.has(RoleWorker) {
		store, err := c.openImages(ctx)
		if err != nil {
			return err
		}
		s.pictures = newPictures(c.Images, store, s.table, s.options.Registry, s.log)
	}
	if err := s.compose(); err != nil {
		return err
	}
	if err := s.makeLoops(ctx); err != nil {
		return err
	}
	return s.openDoor(token)
}

// compose builds the parts over the open table.
func (s *Service) compose() error {
	c := s.config
	s.room = newOutboxRoom(s.table, s.log)
	if n := s.options.outboxLimit; n > 0 {
		s.room.limit, s.room.resume = n, n/2
	}
	s.options.Registry.MustRegister(s.sendingCollectors()...)
	s.overload = s.newOverload()
	s.options.Registry.MustRegister(s.overloadCollectors()...)
	if c.has(RoleWorker) {
		var pool *decodePool
		if s.pictures != nil {
			pool = newDecodePool(c.Images, s.decoder, s.pictures, s.options.Registry, s.log)
		}
		s.generator = newGenerator(c, s.table, s.progress, pool, s.metrics, s.log)
		s.generator.outbox = s.room
		s.generator.room = s.guard.wait
		s.follower = &follower{
			config: c.priorConfig(), dir: c.priorDir(), options: c.RuntimeOptions(), use: s.generator.use, log: s.log,
		}
	}
	if c.has(RoleTrainer) {
		oc := c.onlineConfig()
		oc.Behind = s.unlearned
		oc.Room = func() error { return s.guard.room(0) }
		oc.Busy = func() bool { l := s.lag(); return l.Fold != nil && *l.Fold > busyLag }
		s.trainer = online.New(oc, c.priorConfig(), people.Table{Table: s.table}, c.priorDir(), s.announce, s.log, s.options.Registry)
		if s.follower != nil {
			s.fit = newGuidanceFit(s.trainer.HeldOut, s.options.Registry, s.log)
			s.follower.use = func(p *loadedPrior) {
				s.fit.measure(p.model)
				s.generator.use(p)
			}
		}
	}
	s.door = &door{
		guard: s.guard, client: s.client, topics: c.Kafka.Topics, partitions: c.Kafka.Partitions, decodes: s.decoder != nil,
		table: s.table, rules: c.rules(), progress: s.progress, pictures: s.pictures,
		hasPrior:    func() bool { return s.follower != nil && s.follower.version().Version != "" },
		answering:   s.answers,
		subscribers: map[chan web.Event]struct{}{},
	}
	return nil
}

func (s *Service) openDoor(token string) error {
	listen := s.config.HTTP.Listen
	if listen == "" {
		return nil
	}
	o := web.Options{
		Listen: listen, Token: token, Logger: s.log, Registerer: s.options.Registry, Gatherer: s.options.Registry,
		Producer: s.door, Results: s.door, Users: s.door, Feed: s.door,
		Status:     func(context.Context) web.Status { return s.Status() },
		Ready:      func(context.Context) []web.Reason { return s.Ready() },
		Operator:   s,
		Partitions: s.config.Kafka.Partitions, Images: s.decoder != nil,
	}
	if s.pictures != nil {
		o.Stored = s.pictures
	}
	if t := s.options.World; t != nil {
		o.World, o.Pictures, o.Explorer = t, t, t
	}
	s.server = web.New(o)
	if err := s.server.Listen(); err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	close(s.serving)
	return nil
}

// announce is the trainer's way to the prior topic.
func (s *Service) announce(ctx context.Context, v schemas.PriorVersion) error {
	if err := s.mayAnnounce(ctx); err != nil {
		return err
	}
	value, err := v.Encode()
	if err != nil {
		return fmt.Errorf("encoding prior version %s: %w", v.Version, err)
	}
	_, err = s.client.Produce(ctx, s.config.Kafka.Topics.Prior, 0, []consumer.Message{{Key: []byte(priorKey), Value: value, Time: time.Now()}})
	return err
}

// priorKey is the one key of the compacted prior topic.
const priorKey = "prior"

// TransactionalID is under which a partition's outputs are sent: of the topic
// that they enter and not of who sends them, so that a new owner of the
// partition fences the old one.
func (c Config) TransactionalID(partition int32) string {
	return fmt.Sprintf("rebeca-%s-%d", c.Kafka.Topics.Generated, partition)
}

func (s *Service) close() error {
	var errs []error
	if s.decoder != nil {
		errs = append(errs, s.decoder.Close())
	}
	if s.pictures != nil {
		errs = append(errs, s.pictures.store.Close())
	}
	if s.table != nil {
		errs = append(errs, s.table.Close())
	}
	if s.client != nil {
		s.client.Close()
	}
	return errors.Join(errs...)
}
