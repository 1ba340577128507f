package consumer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	heartbeatEvery = time.Second
	// sessionTimeout is how long the coordinator waits for a member's heartbeat, and
	// rebalanceTimeout how long for its old generation to end: both longer than an orderly end takes.
	sessionTimeout   = 30 * time.Second
	rebalanceTimeout = 45 * time.Second
	// joinBackoff is the pause after a join that failed.
	joinBackoff = 300 * time.Millisecond
)

// Group is the membership of one process in a consumer group that divides the partitions of a topic. Set the fields, then Run once.
type Group struct {
	Client *Client
	Name   string
	Topic  string
	// Held says how far this process is in the partitions that it has something of: they come back to it where the balance allows. It is
	// asked at each join; nil holds nothing.
	Held func() map[int32]int64
	// Assigned is called with the partitions of each generation. It returns when ctx ends, which is when the generation ends, and the group
	// waits for it before it joins the next: what is done by then is done as a member. An error of it ends Run.
	Assigned func(ctx context.Context, as Membership, partitions []int32) error
	Logger   *slog.Logger // nil discards
	// Heartbeat is how often the coordinator hears of the member, and how soon the member of a rebalance; 0 means 1 s.
	Heartbeat time.Duration
}

// Run takes part until ctx ends, which returns nil, or Assigned fails. A coordinator that is away is waited for. The member leaves the group
// before Run returns.
func (g *Group) Run(ctx context.Context) error {
	if g.Logger == nil {
		g.Logger = slog.New(slog.DiscardHandler)
	}
	if g.Heartbeat == 0 {
		g.Heartbeat = heartbeatEvery
	}
	member, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: g.Name, Brokers: g.Client.options.Brokers, Topics: []string{g.Topic}, Dialer: g.Client.dialer(),
		GroupBalancers: []kafka.GroupBalancer{stayingBalancer{g.Held}}, HeartbeatInterval: g.Heartbeat,
		SessionTimeout: sessionTimeout, RebalanceTimeout: rebalanceTimeout, JoinGroupBackoff: joinBackoff,
		WatchPartitionChanges: false, // the number of partitions is part of a state
	})
	if err != nil {
		return fmt.Errorf("joining group %s: %w", g.Name, err)
	}
	failed := make(chan error, 1)
	err = g.follow(ctx, member, failed)
	return errors.Join(err, member.Close())
}

// follow runs one generation after the other.
func (g *Group) follow(ctx context.Context, member *kafka.ConsumerGroup, failed chan error) error {
	for {
		generation, err := member.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case fatalJoin(err):
			return fmt.Errorf("joining group %s: %w", g.Name, g.Client.explain(err))
		case err != nil:
			g.Logger.Warn("joining the group; trying again", "group", g.Name, "err", g.Client.explain(err))
			continue
		}
		as := Membership{Group: g.Name, Generation: generation.ID, Member: generation.MemberID}
		var partitions []int32
		for _, a := range generation.Assignments[g.Topic] {
			partitions = append(partitions, int32(a.ID))
		}
		slices.Sort(partitions)
		g.Logger.Info("partitions assigned", "group", g.Name, "generation", generation.ID, "partitions", partitions)
		over := make(chan struct{})
		generation.Start(func(ended context.Context) {
			defer close(over)
			run, cancel := context.WithCancel(ctx)
			defer cancel()
			stop := context.AfterFunc(ended, cancel)
			defer stop()
			if err := g.Assigned(run, as, partitions); err != nil {
				failed <- err
				return
			}
			<-run.Done()
		})
		<-over
		select {
		case err := <-failed:
			return err
		default:
		}
		if ctx.Err() != nil {
			return nil
		}
		g.Logger.Info("the generation ended", "group", g.Name, "generation", generation.ID)
	}
}

// fatalJoin reports whether no repetition makes the coordinator take this member.
func fatalJoin(err error) bool {
	for _, code := range []kafka.Error{
		kafka.GroupAuthorizationFailed, kafka.TopicAuthorizationFailed, kafka.SASLAuthenticationFailed,
		kafka.InconsistentGroupProtocol, kafka.InvalidSessionTimeout, kafka.InvalidGroupId,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// dialer makes connections that the client knows of, for the group's coordinator.
func (c *Client) dialer() *kafka.Dialer {
	return &kafka.Dialer{
		ClientID: c.options.ClientID, Timeout: c.options.DialTimeout, DialFunc: c.dial, TLS: c.transport.TLS, SASLMechanism: c.transport.SASL,
	}
}

// stayingBalancer gives every partition to the member that is furthest in it, as far as all get equally many: what a member has on its disk
// need not be read from the log again.
type stayingBalancer struct {
	held func() map[int32]int64
}

// ProtocolName implements [kafka.GroupBalancer].
func (stayingBalancer) ProtocolName() string { return "rebeca-staying" }

// UserData implements [kafka.GroupBalancer]: how far this member is, as JSON.
func (b stayingBalancer) UserData() ([]byte, error) {
	if b.held == nil {
		return nil, nil
	}
	return json.Marshal(b.held())
}

// AssignGroups implements [kafka.GroupBalancer]; the group's leader calls it. It depends on its arguments alone.
func (stayingBalancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	out := kafka.GroupMemberAssignments{}
	byTopic := map[string][]int{}
	for _, p := range partitions {
		byTopic[p.Topic] = append(byTopic[p.Topic], p.ID)
	}
	for topic, ids := range byTopic {
		slices.Sort(ids)
		var subscribed []kafka.GroupMember
		for _, m := range members {
			if slices.Contains(m.Topics, topic) {
				subscribed = append(subscribed, m)
			}
		}
		for member, given := range stay(subscribed, ids) {
			if out[member] == nil {
				out[member] = map[string][]int{}
			}
			out[member][topic] = given
		}
	}
	return out
}

// stay divides the partitions of one topic. Of n partitions and m members each gets n/m, and n%m of them one more.
func stay(members []kafka.GroupMember, partitions []int) map[string][]int {
	if len(members) == 0 {
		return nil
	}
	members = slices.SortedFunc(slices.Values(members), func(a, b kafka.GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	type want struct {
		member    string
		partition int
		offset    int64
	}
	var wants []want
	for _, m := range members {
		var held map[int]int64
		_ = json.Unmarshal(m.UserData, &held) // of another make: it holds nothing
		for p, offset := range held {
			wants = append(wants, want{m.ID, p, offset})
		}
	}
	// The furthest first; partition and member decide among equals.
	slices.SortFunc(wants, func(a, b want) int {
		return cmp.Or(cmp.Compare(b.offset, a.offset), cmp.Compare(a.partition, b.partition), cmp.Compare(a.member, b.member))
	})
	out, free := map[string][]int{}, map[int]bool{}
	for _, p := range partitions {
		free[p] = true
	}
	few, more := len(partitions)/len(members), len(partitions)%len(members)
	room := func(member string) bool {
		n := len(out[member])
		return n < few || n == few && more > 0
	}
	give := func(member string, p int) {
		if len(out[member]) == few {
			more--
		}
		out[member] = append(out[member], p)
		delete(free, p)
	}
	for _, w := range wants {
		if free[w.partition] && room(w.member) {
			give(w.member, w.partition)
		}
	}
	for _, p := range partitions {
		if !free[p] {
			continue
		}
		least := slices.MinFunc(members, func(a, b kafka.GroupMember) int { return cmp.Compare(len(out[a.ID]), len(out[b.ID])) })
		give(least.ID, p)
	}
	for m := range out {
		slices.Sort(out[m])
	}
	return out
}
