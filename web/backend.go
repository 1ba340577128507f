package web

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"rebeca/online"
	"rebeca/schemas"
)

// Producer writes to Kafka and answers after the broker's acknowledgement. Its errors are *[Error]
// values where the cause is known; any other error is reported as broker_unavailable.
type Producer interface {
	// Feedback produces valid records. Both results have one entry per record, in order: the place
	// of the record, or the error that kept it out.
	Feedback(ctx context.Context, records []schemas.Feedback) ([]schemas.Position, []error)
	// Request produces one request to generate. It refuses before producing with no_prior while
	// there is no prior, bad_after where After lies beyond the end of the partition, and not_owner
	// where another worker owns the user.
	Request(ctx context.Context, request schemas.Request) (schemas.Position, error)
}

// Results finds what was generated for a request. Records are JSON as published on `generated`.
type Results interface {
	// Recall returns the records of a request that has been answered before. ok is false for a
	// request that is unknown, unfinished or no longer remembered.
	Recall(ctx context.Context, userID, requestID string) (records []json.RawMessage, ok bool, err error)
	// Await returns the records of a request once all count of them are published. It looks at what
	// is there before it waits, so a result cannot be missed between producing and awaiting. It
	// ends with the error of ctx at the latest.
	Await(ctx context.Context, userID, requestID string, count int) ([]json.RawMessage, error)
	// Reached reports whether the fold has passed the position: it tells after_timeout from
	// generate_timeout.
	Reached(after schemas.Position) bool
}

// Users reads the table.
type Users interface {
	// User returns what is known of a user; ok is false for one that never gave feedback.
	User(ctx context.Context, userID string) (user User, ok bool, err error)
	// Generated returns up to limit records as published on `generated`, the newest first.
	Generated(ctx context.Context, userID string, limit int) ([]json.RawMessage, error)
}

// User is a row of the table as the door shows it.
type User struct {
	UserID    string `json:"user_id"`
	Partition int32  `json:"partition"`
	// Events, Positives and Negatives count folded feedback; they only rise.
	Events    uint64 `json:"events"`
	Positives uint64 `json:"positives"`
	Negatives uint64 `json:"negatives"`
	// LastEvents is the newest part of the window, the newest last.
	LastEvents []Entry `json:"last_events"`
	// OlderLikes is the reservoir of older strong likes, in rising offset.
	OlderLikes []Entry `json:"older_likes"`
	// VectorNorm is the Euclidean norm of the user's embedding; nil before there is one.
	VectorNorm *float64 `json:"vector_norm"`
	// PriorVersion is the version the embedding was made with; empty (null in JSON) before.
	PriorVersion string `json:"-"`
}

// MarshalJSON writes null for what does not exist yet and [] for empty lists.
func (u User) MarshalJSON() ([]byte, error) {
	type plain User
	if u.LastEvents == nil {
		u.LastEvents = []Entry{}
	}
	if u.OlderLikes == nil {
		u.OlderLikes = []Entry{}
	}
	u.VectorNorm = finite(u.VectorNorm)
	return json.Marshal(struct {
		plain
		PriorVersion *string `json:"prior_version"`
	}{plain(u), orNull(u.PriorVersion)})
}

// Entry is one feedback event in a window.
type Entry struct {
	ItemID     string       `json:"item_id"`
	Kind       schemas.Kind `json:"kind"`
	Class      string       `json:"class"` // strong_positive, weak_positive, weak_negative, strong_negative, none
	Offset     int64        `json:"offset"`
	OccurredAt time.Time    `json:"occurred_at"`
}

// positive reports whether the entry is a like of either strength.
func (e Entry) positive() bool { return e.Class == "strong_positive" || e.Class == "weak_positive" }

// Status is the state of the service at one moment: the body of /v1/status and the source of the
// gallery's live numbers. A nil pointer or an empty version is null in JSON: not known yet.
type Status struct {
	Lag Lag `json:"lag"`
	// PriorVersion names the version the worker samples with; PriorNumber is its rising number.
	PriorVersion string `json:"-"`
	PriorNumber  int64  `json:"prior_number"`
	// Step counts training steps.
	Step int64 `json:"step"`
	// EventsFolded and Generated count since the process started; Users is the number of rows.
	EventsFolded uint64 `json:"events_folded"`
	Generated    uint64 `json:"generated"`
	Users        int    `json:"users"`
	// ErasePending counts forgotten users that the state's files may still hold something of.
	ErasePending int `json:"erase_pending"`
	// Stopped are the partitions that stand still until an operator decides, in order of their names; empty when all go on.
	Stopped []Stopped `json:"stopped"`
	// GapsAccepted counts gaps of the log that were passed by kafka.on_gap: record since the process started.
	GapsAccepted uint64 `json:"gaps_accepted"`
	// Disk is the room below the state.
	Disk Disk `json:"disk"`
	// Images is the decoding and keeping of pictures; nil without a decoder.
	Images *Images `json:"images"`
	// Overload is what is shed now, and what was since the process started.
	Overload Overload `json:"overload"`
	// Loss is the prior's smoothed training loss.
	Loss *float64 `json:"loss"`
	// Training is the guard's and the trainer's view; nil without that role.
	Training *Training `json:"training"`
	// Partitions are those in the hands of this process, by number.
	Partitions []Partition `json:"partitions"`
	// EventToImage is the recent time from a feedback event to the first published image that
	// knows of it, in milliseconds.
	EventToImage *Quantiles `json:"event_to_image_ms"`
	// LikedShare is the recent share of generated images that their person truly likes, BaseRate
	// the share among catalogue pictures drawn at random. Only a controlled world knows them.
	LikedShare *float64 `json:"liked_share"`
	BaseRate   *float64 `json:"base_rate"`
}

// Stopped is a partition that stands still.
type Stopped struct {
	Partition string `json:"partition"` // topic[number], or trainer
	Code      string `json:"code"`      // gap, recreated, other_record, not_owner, other_trainer, registry_unavailable or stopped
	Message   string `json:"message"`   // what is missing and what to do
}

// Disk is the room where the state is.
type Disk struct {
	Free    int64 `json:"free"`     // bytes, at the last look
	MinFree int64 `json:"min_free"` // bytes below which the intake pauses; 0: never
	Paused  bool  `json:"paused"`
}

// Images says what becomes of pictures.
type Images struct {
	Decoding int `json:"decoding"` // that wait to be decoded or are being decoded
	// ToDelete counts objects of old records and forgotten users that are still in the bucket, as of the last look.
	ToDelete int `json:"to_delete"`
	// BucketError is why the bucket refused last, since BucketErrorSince; empty once it has taken something again.
	BucketError      string    `json:"bucket_error,omitempty"`
	BucketErrorSince time.Time `json:"bucket_error_since,omitzero"`
}

// Partition is what this process does with one partition.
type Partition struct {
	Partition int32  `json:"partition"`
	State     string `json:"state"`         // claiming, catching_up, serving or stopped
	Epoch     uint64 `json:"epoch"`         // of the claim under which it is served; 0 without one
	Offset    int64  `json:"offset"`        // of feedback, folded up to
	Lag       *int64 `json:"lag"`           // feedback records not yet folded; nil until known
	Why       string `json:"why,omitempty"` // of claiming and stopped
}

// Overload is what a service sheds that cannot keep up, in this order: training steps, images that nobody asked for, requests.
// Counts are since the process started.
type Overload struct {
	StepsSkipped       int64  `json:"steps_skipped"`       // training steps not taken
	IntentsSuperseded  uint64 `json:"intents_superseded"`  // images that newer feedback of the same user took the place of
	FeedbackUnanswered uint64 `json:"feedback_unanswered"` // events folded while UnaskedShed
	UnaskedShed        bool   `json:"unasked_shed"`        // feedback makes no images now
	RequestsPaused     bool   `json:"requests_paused"`     // requests wait in their topic now
	// OutboxFull are the partitions that wait until what they have made is sent.
	OutboxFull []int32 `json:"outbox_full"`
}

// Training says what became of the newest candidate version, and what there is to learn from.
type Training struct {
	Verdict       string    `json:"verdict"`          // guarded, unguarded, promoted, refused or held; "" before the first
	RefusedInARow int       `json:"refused_in_a_row"` // candidates that the guard refused since one was not
	HeldUntil     time.Time `json:"held_until,omitzero"`
	HeldOut       int       `json:"heldout"` // events that HeldOutLoss is of
	HeldOutLoss   float64   `json:"heldout_loss"`
	// Usable is the share of recent events that may be targets: of a class, their item in the catalogue. Unresolved is the
	// share of window entries without an embedding.
	// FewUsable is true while Usable is below .1: people rate too little of the catalogue to learn from.
	Usable     float64 `json:"usable_share"`
	FewUsable  bool    `json:"few_usable"`
	Unresolved float64 `json:"unresolved_share"`
	// GuidanceFit is of the newest version loaded here that was measured; absent before there are enough held-out likes.
	GuidanceFit []GuidanceFit `json:"guidance_fit,omitempty"`
	// Student is that of the newest candidate; nil without one.
	Student *Student `json:"student,omitempty"`
	// Examples are the targets learned from, Pseudo those of them that were of pseudo-users, whose law is Law.
	Examples int64       `json:"examples"`
	Pseudo   int64       `json:"pseudo_examples"`
	Law      *online.Law `json:"pseudo_law,omitempty"` // nil while there are none
}

// GuidanceFit is the guidance that fits held-out likes best, by least squares, at a noise level: 1 where the prior knows as much as it
// claims, above where it holds back, below where it claims more than is so.
type GuidanceFit struct {
	LogSNR   float64 `json:"log_snr"`  // ln(α/σ)
	Guidance float64 `json:"guidance"` // w*
	Distance float64 `json:"distance"` // root mean square between what is estimated with the window and without, in the model's scale
}

// Student is how near the samples of the prior's student are to the prior's own.
type Student struct {
	Steps     int64              `json:"steps"`               // taken
	Distances map[string]float64 `json:"distances,omitempty"` // by number of passes; nil before they were measured
	Bound     float64            `json:"bound"`               // the largest that is near enough
	Passes    int                `json:"passes"`              // fewest that are near enough; 0: it is switched off
}

// Lag counts what is still to be done; nil where it does not apply. All reach 0 when input rests.
type Lag struct {
	Fold    *int64 `json:"fold"`    // feedback records not yet folded; nil until assigned
	Publish *int64 `json:"publish"` // intents, outputs and dead letters not yet acknowledged
	Train   *int64 `json:"train"`   // events behind the trainer's cursor; nil without that role
}

// Quantiles of a duration in milliseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// MarshalJSON writes null for an absent version and for numbers that JSON cannot hold, [] for empty lists.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	if s.Partitions == nil {
		s.Partitions = []Partition{}
	}
	s.Loss, s.LikedShare, s.BaseRate = finite(s.Loss), finite(s.LikedShare), finite(s.BaseRate)
	if q := s.EventToImage; q != nil && (finite(&q.P50) == nil || finite(&q.P99) == nil) {
		s.EventToImage = nil
	}
	if s.Overload.OutboxFull == nil {
		s.Overload.OutboxFull = []int32{}
	}
	if s.Stopped == nil {
		s.Stopped = []Stopped{}
	}
	return json.Marshal(struct {
		plain
		PriorVersion *string `json:"prior_version"`
	}{plain(s), orNull(s.PriorVersion)})
}

// Reason says why the service is not ready.
type Reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Feed tells what happens as it happens. The gallery holds one subscription, however many pages
// are open.
type Feed interface {
	// Subscribe returns events until ctx is done, then closes the channel. The channel is bounded;
	// events that a slow subscriber does not take are dropped, never waited for.
	Subscribe(ctx context.Context) <-chan Event
}

// Event is a folded feedback event or a published image; exactly one of the two is set.
type Event struct {
	UserID    string
	Feedback  *Entry
	Generated json.RawMessage // the record as published on `generated`
}

// Stored finds generated pictures by the SHA-256 of their files; nil where none are made.
type Stored interface {
	// Image returns a file and its media type; ok is false where it is not known, or no more. sha256 is 64 lower-case hex digits.
	Image(ctx context.Context, sha256 string) (data []byte, mediaType string, ok bool, err error)
}

// Pictures draws catalogue items; nil where the catalogue has no images.
type Pictures interface {
	// Item returns the item's picture as PNG; ok is false for an unknown item.
	Item(itemID string) (png []byte, ok bool)
}

// Explorer picks catalogue pictures for somebody of whom nothing is known.
type Explorer interface {
	// Explore returns n diverse pictures, the same for the same seed.
	Explore(n int, seed uint64) []ItemPicture
}

// ItemPicture is a catalogue item with its picture.
type ItemPicture struct {
	ItemID string
	PNG    []byte
}

// World knows the truth about simulated people; nil for a real service.
type World interface {
	// Person describes somebody of the world; ok is false for a visitor or an unknown id.
	Person(userID string) (person Person, ok bool)
	// Judge says whether the person truly likes an image with this embedding ([dim], catalogue
	// scale); ok is false where the world does not know the person.
	Judge(userID string, embedding []float32) (likes, ok bool)
}

// Person is somebody of the controlled world.
type Person struct {
	UserID  string `json:"user_id"`
	Caption string `json:"caption"` // what they truly like, for people to read
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func finite(v *float64) *float64 {
	if v == nil || math.IsNaN(*v) || math.IsInf(*v, 0) {
		return nil
	}
	return v
}
