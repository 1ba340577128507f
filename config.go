package rebeca

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rebeca/internal/ort"
	"rebeca/online"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/schemas"
	"rebeca/table"
	"rebeca/web"
)

// Roles of a process.
const (
	RoleWorker  = "worker"  // folds, samples, publishes
	RoleTrainer = "trainer" // folds into its own table and learns
)

// Config is the whole configuration file. The zero value is not usable:
// start from [DefaultConfig]. Keys are checked strictly, see [ParseConfig].
type Config struct {
	// Roles of this process: worker, trainer or both (default); where the work
	// is divided by Partitions or Group the default is worker.
	Roles []string `yaml:"roles"`
	// Partitions are those that this process owns, such as 0-3 or 0,2,5-7; empty
	// (default) for all of them.
	Partitions Partitions `yaml:"partitions"`
	// Group is the name of a consumer group that divides the partitions among its
	// members, one member per state directory; empty (default) for none.
	Group string `yaml:"group"`
	// Peers are the other workers: the URL of each and its partitions, so that
	// this one can say who owns a user. Empty by default.
	Peers map[string]Partitions `yaml:"peers"`
	// Kafka is where the log is.
	Kafka KafkaConfig `yaml:"kafka"`
	// Registry is where the schemas of Avro and Protobuf records are; none by default.
	Registry RegistryConfig `yaml:"registry"`
	// State is where this process keeps its table and its checkpoints.
	State StateConfig `yaml:"state"`
	// Prior is the form of the model.
	Prior PriorConfig `yaml:"prior"`
	// Window, Dedupe and Classes are the rules of the fold. A state directory
	// remembers the rules it was born with.
	Window  WindowConfig  `yaml:"window"`
	Dedupe  DedupeConfig  `yaml:"dedupe"`
	Classes ClassesConfig `yaml:"classes"`
	// Generate says when feedback leads to a new image.
	Generate GenerateConfig `yaml:"generate"`
	// Train is the learning loop.
	Train TrainConfig `yaml:"train"`
	// Sampler is the reverse diffusion.
	Sampler SamplerConfig `yaml:"sampler"`
	// Decoder turns embeddings into pixels.
	Decoder DecoderConfig `yaml:"decoder"`
	// Images says how pixels are encoded, and where they are kept.
	Images ImagesConfig `yaml:"images"`
	// HTTP is the door for people and for requests without Kafka.
	HTTP HTTPConfig `yaml:"http"`
	// Limits keep the service within its machine.
	Limits LimitsConfig `yaml:"limits"`
	// ONNXRuntime is the native library the engine runs in.
	ONNXRuntime ONNXRuntimeConfig `yaml:"onnxruntime"`
}

// KafkaConfig names the brokers and topics.
type KafkaConfig struct {
	Brokers []string `yaml:"brokers"` // host:port, at least one
	// Partitions of every user-keyed topic, 1 to 10,000; default 4, fixed when a state is born.
	Partitions int `yaml:"partitions"`
	// Replication of new topics; 0 (default) leaves it to the broker.
	Replication int         `yaml:"replication"`
	Topics      TopicConfig `yaml:"topics"`
	// OnGap is what is done about a log that does not hold what was to be read
	// next, because of retention or because the topic was made anew: fail
	// (default) stops that partition by name; record notes the gap in the state
	// and folds on from the first record that the log holds.
	OnGap string `yaml:"on_gap"`
	// TLS turns TLS on; the system's certificate pool is used.
	TLS bool `yaml:"tls"`
	// SASL authenticates when its mechanism is set.
	SASL SASLConfig `yaml:"sasl"`
}

// SASLConfig is the client's authentication.
type SASLConfig struct {
	Mechanism    string `yaml:"mechanism"` // "", plain, scram-sha-256, scram-sha-512; with one, the rest is required
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"` // the first line of this file
}

// RegistryConfig names a schema registry with Confluent's HTTP interface. With
// one, records of feedback, items and requests that begin with byte 0 are
// framed Avro, Protobuf or JSON, and read by the schema that they name.
type RegistryConfig struct {
	URL string `yaml:"url"` // http:// or https://; empty (default): no registry, such records are dead letters
	// Username and the first line of PasswordFile are sent as basic
	// authentication; both or none.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// CAFile holds the certificates, in PEM, that an https:// registry is
	// trusted by; empty: the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile, both in PEM or none, are this client's certificate,
	// with those that lead from it to the registry's authority, and its key.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// TopicConfig gives the topics' names; each default is its key.
type TopicConfig struct {
	Items      string `yaml:"items"`
	Feedback   string `yaml:"feedback"`
	Requests   string `yaml:"requests"`
	Generated  string `yaml:"generated"`
	Vectors    string `yaml:"vectors"`
	Prior      string `yaml:"prior"`
	DeadLetter string `yaml:"deadletter"`
}

// StateConfig is the state directory: the table under table/, checkpoints
// under prior/. It is created when missing.
type StateConfig struct {
	Dir string `yaml:"dir"`
	// EraseEvery is how often the files are cleaned of users that were forgotten
	// since; 0 leaves it to `rebeca erase` on a stopped service. Each time most
	// of the state is rewritten.
	EraseEvery time.Duration `yaml:"erase_every"`
}

// PriorConfig is the form of the prior and what it learns to predict. A state
// keeps the form that its prior was born with: another one is refused at start
// until `rebeca prior reset`.
type PriorConfig struct {
	// Kind is mlp, transformer or auto (default): mlp below 256 dimensions,
	// transformer from there on.
	Kind string `yaml:"kind"`
	Dim  int    `yaml:"dim"` // length of an item's embedding; no default
	// A size of 0, the default, is that of prior.DefaultConfig for Dim and Kind.
	Hidden int `yaml:"hidden"` // width of tokens and of the residual stream
	Blocks int `yaml:"blocks"` // residual blocks
	Heads  int `yaml:"heads"`  // of attention; they divide Hidden
	Tokens int `yaml:"tokens"` // that an embedding is cut into, a divisor of Dim; transformer only
	// Loss is the objective, the noise schedule, and which noise levels training
	// draws and how it weighs them; default prior.DefaultLoss.
	Loss prior.Loss `yaml:"loss"`
}

// WindowConfig is what is remembered of a user: the newest entries and a
// reservoir of older strong likes.
type WindowConfig struct {
	Newest int `yaml:"newest"`
	Liked  int `yaml:"liked"`
}

// DedupeConfig bounds the resend window, in distinct event ids per user.
type DedupeConfig struct {
	Events int `yaml:"events"`
}

// ClassesConfig chooses how kinds fold to classes: default, or paper (a
// rating of 4 and more is a like, all else a dislike).
type ClassesConfig struct {
	Preset string `yaml:"preset"`
}

// GenerateConfig says when feedback leads to an image: after Debounce of
// quiet and at most MaxWait after the first event. Events older than MaxAge, by
// their Kafka timestamp or by occurred_at, are folded and make no image.
type GenerateConfig struct {
	Debounce time.Duration `yaml:"debounce"`
	MaxWait  time.Duration `yaml:"max_wait"`
	MaxAge   time.Duration `yaml:"max_age"`
	Count    int           `yaml:"count"` // images per feedback trigger
	// Explain is how many of the events that an image is owed to its record names,
	// up to 8; 0 (default): none, but three where a request asks for them.
	Explain int `yaml:"explain"`
}

// TrainConfig is the part of [online.Config] that operators set.
type TrainConfig struct {
	Steps      int     `yaml:"steps"`       // optimizer steps per 64 events
	LR         float64 `yaml:"lr"`          // peak learning rate
	BornLR     float64 `yaml:"born_lr"`     // the same once the steps of birth are taken
	LRMin      float64 `yaml:"lr_min"`      // final learning rate
	DecaySteps int     `yaml:"decay_steps"` // steps from the peak to the final rate
	Splice     float64 `yaml:"splice"`      // share of contexts with another user's past
	MaxLag     int64   `yaml:"max_lag"`     // events behind before steps are skipped
	// BirthSteps are taken on pseudo-users drawn from the catalogue alone, at
	// the peak rate BirthLR, with BirthTargets targets for each; PseudoShare is
	// their share of later contexts.
	BirthSteps   int     `yaml:"birth_steps"`
	BirthTargets int     `yaml:"birth_targets"`
	BirthLR      float64 `yaml:"birth_lr"`
	PseudoShare  float64 `yaml:"pseudo_share"`
	// Student learns a student beside the prior, which samples in 1 to 4 passes;
	// it costs about half of the prior's training once more. A version's student
	// is used up to the distance StudentBound from its teacher's samples.
	Student      bool    `yaml:"student"`
	StudentBound float64 `yaml:"student_bound"`
	// IdleSteps more are taken, at most IdleShare of the time and in all, while no
	// event comes; then an idle service does nothing.
	IdleSteps int     `yaml:"idle_steps"`
	IdleShare float64 `yaml:"idle_share"`
	// FitLaw has pseudo-users become like the people of the stream.
	FitLaw bool `yaml:"fit_law"`
	// A candidate version is scored on HeldOut held-out events; with GuardEvents
	// of them it is refused if it is worse than the version before by more than
	// GuardTolerance of its loss plus GuardErrors standard errors. After
	// GuardPatience refusals in a row learning goes back.
	HeldOut        int     `yaml:"held_out"`
	GuardEvents    int     `yaml:"guard_events"`
	GuardTolerance float64 `yaml:"guard_tolerance"`
	GuardErrors    float64 `yaml:"guard_errors"`
	GuardPatience  int     `yaml:"guard_patience"`
	Seed           uint64  `yaml:"seed"`
	Threads        int     `yaml:"threads"` // intra-op threads of a step
}

// SamplerConfig is [sampler.Options] as written in the file.
type SamplerConfig struct {
	Steps    int        `yaml:"steps"`
	Guidance float64    `yaml:"guidance"`
	Interval [2]float64 `yaml:"interval"` // ln(α/σ) within which guidance applies
	// Solver takes the steps: ddim (default) or dpmpp_2m.
	Solver string `yaml:"solver"`
	// Away moves guided images away from what the person dislikes, a third pass; 0 (default) does not.
	Away float64 `yaml:"away"`
	// NormGuard bounds a guided estimate's norm to so many times the conditional one's, at least 1; 0 (default) does not.
	NormGuard float64 `yaml:"norm_guard"`
	// Passes is the number of passes that an embedding takes by the prior's
	// student: 1, 2 or 4; auto (default) takes the fewest that are near enough
	// to the steps above, which are taken where there is no such student; teacher
	// never asks it.
	Passes sampler.Passes `yaml:"passes"`
	// Anchor starts the images of people with likes from one of those, noised.
	Anchor AnchorConfig `yaml:"anchor"`
	// Candidates are drawn for each image, of which Choice takes one, 1 to 16; 1 leaves no
	// choice. Default 4. A request may say otherwise; one with a seed or guidance 1 has 1.
	Candidates int          `yaml:"candidates"`
	Choice     ChoiceConfig `yaml:"choice"`
}

// ChoiceConfig is [sampler.Choice] as written in the file, with what it
// remembers of a person and who ranks.
type ChoiceConfig struct {
	// Ranker is plain (default: nearer to likes than to dislikes), evidence (what
	// the prior knows of the chance of a like, at four passes a candidate) or none.
	Ranker string `yaml:"ranker"`
	// Copy and Given are in the catalogue's spacing, the median distance of an item
	// to the nearest other: nearer than that to an item, or to what the person was
	// given, a candidate is taken only where all are; 0 takes any.
	Copy  float64 `yaml:"copy"`
	Given float64 `yaml:"given"`
	// GivenFor and GivenMost bound what counts as given: for how long after its
	// cause, by Kafka timestamps, and the newest so many, up to 1,000.
	GivenFor  time.Duration `yaml:"given_for"`
	GivenMost int           `yaml:"given_most"`
	// Spread weighs an even spread over the person's tastes, 0 to 1, against the ranker.
	Spread float64 `yaml:"spread"`
}

func defaultChoice() ChoiceConfig {
	c := sampler.DefaultChoice()
	return ChoiceConfig{Ranker: rankPlain, Copy: c.Copy, Given: c.Given, GivenFor: 24 * time.Hour, GivenMost: 32, Spread: c.Spread}
}

func (c ChoiceConfig) choice() sampler.Choice {
	return sampler.Choice{Copy: c.Copy, Given: c.Given, Spread: c.Spread}
}

func (c ChoiceConfig) validate() error {
	switch {
	case !slices.Contains([]string{rankEvidence, rankPlain, rankNone}, c.Ranker):
		return fmt.Errorf("ranker: %q is not %s, %s or %s", c.Ranker, rankEvidence, rankPlain, rankNone)
	case c.GivenFor < 0:
		return fmt.Errorf("given_for: %s is below 0", c.GivenFor)
	case c.GivenMost < 0 || c.GivenMost > 1000:
		return fmt.Errorf("given_most: %d is outside 0..1000", c.GivenMost)
	}
	return c.choice().Validate()
}

// AnchorConfig is [sampler.Anchor] as written in the file.
type AnchorConfig struct {
	Steps int     `yaml:"steps"` // from the entry on; 0 starts from noise
	Level float64 `yaml:"level"` // ln(α/σ) that the entry is noised to
	Few   float64 `yaml:"few"`   // added to Level where it is the only like; Few/(1 + (n-1)/4) where there are n
	Decay float64 `yaml:"decay"` // the like of rank r is drawn with weight exp(-r/decay)
}

// DecoderConfig names the decoder: none (default), shapes (the controlled
// world's), or the path of a manifest, of one network or of Stable Diffusion
// (docs/decoders.md).
type DecoderConfig struct {
	Manifest string `yaml:"manifest"`
}

// HTTPConfig is the HTTP door; an empty Listen turns it off.
type HTTPConfig struct {
	Listen string `yaml:"listen"`
	// Advertise is the URL under which other processes reach this door.
	Advertise string `yaml:"advertise"`
	Token     string `yaml:"token"`
	TokenFile string `yaml:"token_file"`
}

// LimitsConfig keeps the service within its machine.
type LimitsConfig struct {
	// MinFree is the free space where State.Dir is, in MiB, below which the
	// intake pauses; it goes on by itself at 1.25 times that. Snapshots and
	// checkpoints are refused below 1.5 times. 0 guards nothing; the default is
	// what the state's logs can grow by before they are compacted.
	MinFree int64 `yaml:"min_free"`
	// FoldRate bounds the feedback records that this process folds, all its
	// partitions together: what comes faster waits in the log and is told as lag.
	// 0 (default) folds as fast as it can. Replays are not bounded.
	FoldRate Rate `yaml:"fold_rate"`
}

// ONNXRuntimeConfig finds the native library; an empty Library means
// $REBECA_ONNXRUNTIME, then the per-user cache.
type ONNXRuntimeConfig struct {
	Library string `yaml:"library"`
	Threads int    `yaml:"threads"` // intra-op threads of sampling and decoding
	// Provider executes training, sampling and decoding: cpu (default) or cuda,
	// which needs a library built with it and an NVIDIA device.
	Provider string `yaml:"provider"`
	// Spin is how long an idle thread of a run looks for work before it sleeps;
	// 0 (default) where the cores have other work, some 20µs where they do not.
	Spin time.Duration `yaml:"spin"`
}

// DefaultConfig returns the defaults; Kafka.Brokers, State.Dir and Prior.Dim
// are left for the file.
func DefaultConfig() Config {
	p, r, t, s := prior.DefaultConfig(1), table.DefaultRules(), online.DefaultConfig(), sampler.DefaultOptions()
	return Config{
		Roles: []string{RoleWorker, RoleTrainer},
		Kafka: KafkaConfig{
			Partitions: 4, OnGap: OnGapFail,
			Topics: TopicConfig{
				Items: "items", Feedback: "feedback", Requests: "requests", Generated: "generated",
				Vectors: "vectors", Prior: "prior", DeadLetter: "deadletter",
			},
		},
		Prior:   PriorConfig{Kind: p.Kind, Loss: p.Loss},
		Window:  WindowConfig{Newest: r.Newest, Liked: r.Liked},
		Dedupe:  DedupeConfig{Events: r.Dedupe},
		Classes: ClassesConfig{Preset: "default"},
		Generate: GenerateConfig{
			Debounce: 50 * time.Millisecond, MaxWait: 200 * time.Millisecond, MaxAge: 10 * time.Minute, Count: 1,
		},
		Train: TrainConfig{
			Steps: t.Steps, LR: t.LR, BornLR: t.BornLR, LRMin: t.LRMin, DecaySteps: t.DecaySteps, Splice: t.Splice,
			MaxLag: t.MaxLag, BirthSteps: t.BirthSteps, BirthTargets: t.BirthTargets, BirthLR: t.BirthLR,
			PseudoShare: t.PseudoShare, Student: t.Student, StudentBound: t.StudentBound,
			HeldOut: t.HeldOut, GuardEvents: t.GuardEvents, GuardTolerance: t.GuardTolerance, GuardErrors: t.GuardErrors, GuardPatience: t.GuardPatience,
			IdleSteps: t.IdleSteps, IdleShare: t.IdleShare, FitLaw: t.FitLaw, Seed: t.Seed, Threads: t.Threads,
		},
		Sampler:     SamplerConfig{Steps: s.Steps, Guidance: s.Guidance, Interval: [2]float64{s.Low, s.High}, Solver: string(sampler.DDIM), Passes: s.Passes, Anchor: AnchorConfig(s.Anchor), Candidates: 4, Choice: defaultChoice()},
		Decoder:     DecoderConfig{Manifest: "none"},
		Images:      defaultImages(),
		HTTP:        HTTPConfig{Listen: "127.0.0.1:8080"},
		State:       StateConfig{EraseEvery: time.Hour},
		Limits:      LimitsConfig{MinFree: table.MinFree >> 20},
		ONNXRuntime: ONNXRuntimeConfig{Threads: 1, Provider: ort.CPU},
	}
}

// LoadConfig reads and validates the file at path.
func LoadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := ParseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseConfig decodes YAML over [DefaultConfig] and validates it. All unknown
// keys and wrong types are reported, each with its path, and where there are
// none what [Config.Validate] finds.
func ParseConfig(b []byte) (Config, error) {
	c := DefaultConfig()
	both := c.Roles
	c.Roles = nil
	if err := decodeStrict(b, &c); err != nil {
		return Config{}, err
	}
	if c.Roles == nil {
		if c.Roles = both; c.divided() {
			c.Roles = []string{RoleWorker}
		}
	}
	return c, c.Validate()
}

// maxPartitions is far beyond what one process serves; each has its loops and
// its part of the table.
const maxPartitions = 10000

// Validate reports the values out of range, joined, each with its path: all of
// them, but of prior, train and sampler the first each. It reads no file, see
// [Config.CheckFiles].
func (c Config) Validate() error {
	var errs []error
	bad := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf(path+": "+format, args...))
	}
	if len(c.Roles) == 0 {
		bad("roles", "at least one of %s, %s", RoleWorker, RoleTrainer)
	}
	for i, r := range c.Roles {
		if r != RoleWorker && r != RoleTrainer {
			bad(fmt.Sprintf("roles[%d]", i), "%q is not %s or %s", r, RoleWorker, RoleTrainer)
		}
	}
	if len(c.Kafka.Brokers) == 0 {
		bad("kafka.brokers", "needs at least one host:port")
	}
	for i, b := range c.Kafka.Brokers {
		if _, port, err := net.SplitHostPort(b); err != nil {
			bad(fmt.Sprintf("kafka.brokers[%d]", i), "%q is not host:port", b)
		} else if _, err := net.LookupPort("tcp", port); err != nil {
			bad(fmt.Sprintf("kafka.brokers[%d]", i), "%q: %q is not a port, 1 to 65535", b, port)
		}
	}
	atLeast := func(path string, v, min int) {
		if v < min {
			bad(path, "%d is below %d", v, min)
		}
	}
	atLeast("kafka.partitions", c.Kafka.Partitions, 1)
	if n := c.Kafka.Partitions; n > maxPartitions {
		bad("kafka.partitions", "%d is above %d", n, maxPartitions)
	}
	atLeast("kafka.replication", c.Kafka.Replication, 0)
	if g := c.Kafka.OnGap; g != OnGapFail && g != OnGapRecord {
		bad("kafka.on_gap", "%q is not %s or %s", g, OnGapFail, OnGapRecord)
	}
	errs = append(errs, c.Kafka.SASL.validate()...)
	errs = append(errs, c.Registry.validate()...)
	seen := map[string]string{}
	for _, t := range c.Kafka.Topics.named() {
		if t.name == "" {
			bad("kafka.topics."+t.key, "is empty")
		} else if other, ok := seen[t.name]; ok {
			bad("kafka.topics."+t.key, "%q is also kafka.topics.%s", t.name, other)
		}
		seen[t.name] = t.key
	}
	c.validatePartitions(bad)
	if c.State.Dir == "" {
		bad("state.dir", "is empty: name a directory, it is created when missing")
	}
	if d := c.State.EraseEvery; d != 0 && d < time.Second {
		bad("state.erase_every", "%s is below 1s", d)
	}
	if n := c.Limits.MinFree; n < 0 || n > 1<<40 {
		bad("limits.min_free", "%d is outside 0..%d MiB", n, int64(1)<<40)
	}
	if r := c.Limits.FoldRate; r < 0 || r > 0 && r < 1 || r > 1e9 {
		text, _ := r.MarshalText() // has no error
		bad("limits.fold_rate", "%s is outside 1/s..1000000000/s, and 0 is no bound", text)
	}
	atLeast("prior.dim", c.Prior.Dim, 1)
	if p := c.priorConfig(); p.HasUserTable() {
		bad("prior.kind", "%q knows users by their rows of a learned table and cannot follow a stream: mlp, transformer or auto; "+
			"sample an imported one with `rebeca prior sample`", p.Kind)
	} else if err := p.Validate(); err != nil && c.Prior.Dim >= 1 {
		errs = append(errs, fmt.Errorf("prior.%w", err))
	}
	atLeast("window.newest", c.Window.Newest, 4)
	atLeast("window.liked", c.Window.Liked, 0)
	if n := c.Window.Newest + c.Window.Liked; n > 4096 {
		bad("window", "%d entries are above 4096", n)
	}
	atLeast("dedupe.events", c.Dedupe.Events, 1)
	if c.Dedupe.Events > 4096 {
		bad("dedupe.events", "%d is above 4096", c.Dedupe.Events)
	}
	if !slices.Contains([]string{"default", "paper"}, c.Classes.Preset) {
		bad("classes.preset", "%q is not default or paper", c.Classes.Preset)
	}
	if g := c.Generate; g.Debounce < 0 || g.MaxWait < g.Debounce {
		bad("generate.max_wait", "%s is below generate.debounce %s", g.MaxWait, g.Debounce)
	}
	if c.Generate.MaxAge <= 0 {
		bad("generate.max_age", "must be above 0")
	}
	if n := c.Generate.Count; n < 0 || n > 64 {
		bad("generate.count", "%d is outside 0..64", n)
	}
	if n := c.Generate.Explain; n < 0 || n > maxCauses {
		bad("generate.explain", "%d is outside 0..%d", n, maxCauses)
	}
	if err := c.onlineConfig().Validate(); err != nil {
		errs = append(errs, fmt.Errorf("train.%w", err))
	}
	if c.Train.Student {
		if err := c.priorConfig().CanTeach(); err != nil {
			bad("train.student", "%v", err)
		}
	}
	if err := c.Sampler.validate(); err != nil {
		errs = append(errs, fmt.Errorf("sampler.%w", err))
	}
	if c.Decoder.Manifest == "" {
		bad("decoder.manifest", `is empty: "none", "shapes" or a manifest's path`)
	}
	errs = append(errs, c.Images.validate()...)
	if c.HTTP.Listen != "" {
		// A named file stands for the token that will be in it.
		if err := web.CheckListen(c.HTTP.Listen, c.HTTP.Token+c.HTTP.TokenFile); err != nil {
			errs = append(errs, fmt.Errorf("http.listen: %w", err))
		}
	}
	if c.HTTP.Token != "" && c.HTTP.TokenFile != "" {
		bad("http.token_file", "is set beside http.token: keep one")
	}
	if t := c.ONNXRuntime.Threads; t < 1 || t > 256 {
		bad("onnxruntime.threads", "%d is outside 1..256", t)
	}
	if p := c.ONNXRuntime.Provider; !slices.Contains(ort.Providers(), p) {
		bad("onnxruntime.provider", "%q is not %s", p, strings.Join(ort.Providers(), " or "))
	}
	if d := c.ONNXRuntime.Spin; d < 0 || d > time.Second {
		bad("onnxruntime.spin", "%s is outside 0s..1s", d)
	}
	return errors.Join(errs...)
}

func (s SASLConfig) validate() (errs []error) {
	switch s.Mechanism {
	case "":
		return nil
	case "plain", "scram-sha-256", "scram-sha-512":
	default:
		errs = append(errs, fmt.Errorf("kafka.sasl.mechanism: %q is not plain, scram-sha-256 or scram-sha-512", s.Mechanism))
	}
	if s.Username == "" {
		errs = append(errs, errors.New("kafka.sasl.username: is empty: kafka.sasl.mechanism needs it"))
	}
	if s.PasswordFile == "" {
		errs = append(errs, errors.New("kafka.sasl.password_file: is empty: kafka.sasl.mechanism needs it"))
	}
	return errs
}

// validate names the first fault by the file's key.
func (s SamplerConfig) validate() error {
	if low, high := s.Interval[0], s.Interval[1]; !(low <= high) { // NaN too
		return fmt.Errorf("interval: [%g, %g] must be two numbers, the first not above the second", low, high)
	}
	if n := s.Candidates; n < 1 || n > schemas.MaxCandidates {
		return fmt.Errorf("candidates: %d is outside 1..%d", n, schemas.MaxCandidates)
	}
	if err := s.Choice.validate(); err != nil {
		return fmt.Errorf("choice.%w", err)
	}
	return s.options().Validate()
}

func (c Config) has(role string) bool { return slices.Contains(c.Roles, role) }

type namedTopic struct{ key, name string }

func (t TopicConfig) named() []namedTopic {
	return []namedTopic{
		{"items", t.Items}, {"feedback", t.Feedback}, {"requests", t.Requests}, {"generated", t.Generated},
		{"vectors", t.Vectors}, {"prior", t.Prior}, {"deadletter", t.DeadLetter},
	}
}

func (c Config) tableDir() string { return filepath.Join(c.State.Dir, "table") }
func (c Config) priorDir() string { return filepath.Join(c.State.Dir, "prior") }

func (c Config) priorConfig() prior.Config {
	p := prior.DefaultConfig(c.Prior.Dim)
	p.Kind, p.Loss = c.Prior.Kind, c.Prior.Loss
	for _, f := range []struct {
		size       *int
		configured int
	}{{&p.Hidden, c.Prior.Hidden}, {&p.Blocks, c.Prior.Blocks}, {&p.Heads, c.Prior.Heads}, {&p.Tokens, c.Prior.Tokens}} {
		if f.configured != 0 {
			*f.size = f.configured
		}
	}
	p.MaxTokens = c.Window.Newest + c.Window.Liked
	return p
}

func (c Config) rules() table.Rules {
	r := table.DefaultRules()
	r.Newest, r.Liked, r.Dedupe = c.Window.Newest, c.Window.Liked, c.Dedupe.Events
	if c.Classes.Preset == "paper" {
		r.Classes = table.PaperClasses()
	}
	return r
}

func (c Config) onlineConfig() online.Config {
	o, t := online.DefaultConfig(), c.Train
	o.Steps, o.LR, o.BornLR, o.LRMin, o.DecaySteps = t.Steps, t.LR, t.BornLR, t.LRMin, t.DecaySteps
	o.Splice, o.MaxLag, o.Seed, o.Threads = t.Splice, t.MaxLag, t.Seed, t.Threads
	o.BirthSteps, o.BirthTargets, o.BirthLR, o.PseudoShare = t.BirthSteps, t.BirthTargets, t.BirthLR, t.PseudoShare
	o.IdleSteps, o.IdleShare, o.FitLaw = t.IdleSteps, t.IdleShare, t.FitLaw
	o.HeldOut, o.GuardEvents, o.GuardPatience = t.HeldOut, t.GuardEvents, t.GuardPatience
	o.GuardTolerance, o.GuardErrors = t.GuardTolerance, t.GuardErrors
	o.Provider, o.Spin = c.ONNXRuntime.Provider, c.ONNXRuntime.Spin
	s := c.samplerOptions()
	o.Student, o.StudentBound, o.StudentLow, o.StudentHigh = t.Student, t.StudentBound, s.Low, s.High
	o.Distances = sampler.Examiner(s, c.RuntimeOptions())
	return o
}

// PriorShape returns the configuration of the prior that this one asks for.
func (c Config) PriorShape() prior.Config { return c.priorConfig() }

// RuntimeOptions are those of sessions that sample and decode.
func (c Config) RuntimeOptions() ort.Options {
	r := c.ONNXRuntime
	return ort.Options{Threads: r.Threads, Provider: r.Provider, Spin: r.Spin}
}

func (c Config) samplerOptions() sampler.Options { return c.Sampler.options() }

func (s SamplerConfig) options() sampler.Options {
	o := sampler.DefaultOptions()
	o.Steps, o.Guidance = s.Steps, s.Guidance
	o.Low, o.High = s.Interval[0], s.Interval[1]
	o.Passes = s.Passes
	o.Solver, o.Away, o.NormGuard = sampler.Solver(s.Solver), s.Away, s.NormGuard
	o.Anchor = sampler.Anchor(s.Anchor)
	return o
}
