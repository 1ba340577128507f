package consumer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

const (
	// requestTimeout bounds one request over a connection that may be dead. kafka-go tells the broker half of it.
	requestTimeout = 10 * time.Second
	// metadataTTL bounds the age of the cached layout; an error that speaks of a wrong layout renews it at once.
	metadataTTL = 5 * time.Second
	// refreshEvery keeps many partitions that lose one broker from asking for its layout all at once.
	refreshEvery = 200 * time.Millisecond
	// pingTimeout bounds the first answer of a broker.
	pingTimeout = 5 * time.Second
)

// SASL names a user to the brokers; the zero value means no authentication.
type SASL struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username  string
	Password  string
}

// Options of a client.
type Options struct {
	Brokers     []string      // host:port, at least one; the port defaults to 9092
	ClientID    string        // as the brokers log it
	TLS         bool          // encrypt, trusting the system's certificates
	TLSConfig   *tls.Config   // own certificates; nil takes the system's; setting it turns TLS on
	SASL        SASL          //
	DialTimeout time.Duration // default 3 s
}

// Client speaks to a Kafka cluster. It is safe for concurrent use. Each request in flight has a connection of its own,
// so a long poll holds up nobody.
type Client struct {
	options   Options
	kafka     *kafka.Client
	transport *kafka.Transport

	mu        sync.Mutex
	conns     map[net.Conn]struct{} // guarded by mu; open connections
	refreshed time.Time             // guarded by mu
	closed    bool                  // guarded by mu
}

// NewClient checks the options and connects to nothing. The caller closes the client.
func NewClient(o Options) (*Client, error) {
	if len(o.Brokers) == 0 {
		return nil, errors.New("no Kafka broker is named")
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = 3 * time.Second
	}
	mechanism, err := o.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	c := &Client{options: o, conns: map[net.Conn]struct{}{}}
	c.transport = &kafka.Transport{
		Dial: c.dial, DialTimeout: o.DialTimeout, MetadataTTL: metadataTTL, ClientID: o.ClientID, TLS: o.TLSConfig, SASL: mechanism,
	}
	if o.TLS && o.TLSConfig == nil {
		c.transport.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c.kafka = &kafka.Client{Addr: kafka.TCP(o.Brokers...), Timeout: requestTimeout, Transport: c.transport}
	return c, nil
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "":
		return nil, nil
	case "PLAIN":
		return plain.Mechanism{Username: s.Username, Password: s.Password}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, s.Username, s.Password)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, s.Username, s.Password)
	}
	return nil, fmt.Errorf("SASL mechanism %q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", s.Mechanism)
}

// Close cuts all connections; requests in flight fail. The loops that use the client must have ended or be ending.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	conns := c.conns
	c.conns = map[net.Conn]struct{}{}
	c.mu.Unlock()
	c.transport.CloseIdleConnections()
	for conn := range conns {
		_ = conn.Close()
	}
}

// dial keeps account of connections, because the Transport closes only idle ones.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: c.options.DialTimeout}
	inner, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := &connection{Conn: inner, client: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(errClosed, inner.Close())
	}
	c.conns[conn] = struct{}{}
	return conn, nil
}

type connection struct {
	net.Conn
	client *Client
}

func (n *connection) Close() error {
	n.client.mu.Lock()
	delete(n.client.conns, n)
	n.client.mu.Unlock()
	return n.Conn.Close()
}

// refresh drops what the Transport believes about the cluster. Requests in flight end on their old connections.
func (c *Client) refresh(force bool) {
	c.mu.Lock()
	due := force || time.Since(c.refreshed) >= refreshEvery
	if due {
		c.refreshed = time.Now()
	}
	c.mu.Unlock()
	if due {
		c.transport.CloseIdleConnections()
	}
}

// roundTrip sends one protocol message with a deadline, without which a silent broker would hold a connection for ever.
func (c *Client) roundTrip(ctx context.Context, wait time.Duration, req kafka.Request) (kafka.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+requestTimeout)
	defer cancel()
	resp, err := c.transport.RoundTrip(ctx, c.kafka.Addr, req)
	if err != nil {
		return nil, c.cause(ctx, err)
	}
	return resp, nil
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Ping asks a broker for the cluster's layout and returns one clear line when none answers within 5 s (or ctx's
// deadline).
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	c.refresh(true)
	if _, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}}); err != nil {
		return fmt.Errorf("no Kafka broker answers at %s: %w", strings.Join(c.options.Brokers, ", "), c.explain(err))
	}
	return nil
}

// leaderWait bounds how long Offsets waits for a partition's leader. A topic that was just made has none for some tens of
// milliseconds, a broker that was just started leads none for a second.
const leaderWait = 10 * time.Second

// Offsets returns the first offset that a partition still holds and the one that its next record will get. While the partition has no
// leader it asks again, for 10 s at most.
func (c *Client) Offsets(ctx context.Context, topic string, partition int32) (first, last int64, err error) {
	for until := time.Now().Add(leaderWait); ; {
		first, last, err = c.offsets(ctx, topic, partition)
		if !leaderless(err) || time.Now().After(until) {
			return first, last, err
		}
		select {
		case <-time.After(refreshEvery):
		case <-ctx.Done():
			return first, last, err
		}
	}
}

// leaderless reports whether a partition has no leader, or another than we knew.
func leaderless(err error) bool {
	return errors.Is(err, kafka.LeaderNotAvailable) || errors.Is(err, kafka.NotLeaderForPartition)
}

func (c *Client) offsets(ctx context.Context, topic string, partition int32) (first, last int64, err error) {
	resp, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(int(partition)), kafka.LastOffsetOf(int(partition))},
	}})
	if err == nil {
		for _, p := range resp.Topics[topic] {
			if p.Partition == int(partition) && p.Error == nil {
				return p.FirstOffset, p.LastOffset, nil
			}
			err = p.Error
		}
		if err == nil {
			err = kafka.UnknownTopicOrPartition
		}
	}
	c.refresh(false)
	return 0, 0, fmt.Errorf("listing offsets of %s[%d]: %w", topic, partition, c.explain(err))
}

// end returns the offset that a partition's next record will get.
func (c *Client) end(ctx context.Context, topic string, partition int32) (int64, error) {
	resp, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(int(partition))}},
	})
	if err != nil {
		return 0, err
	}
	for _, p := range resp.Topics[topic] {
		if p.Error == nil {
			return p.LastOffset, nil
		}
		err = p.Error
	}
	return 0, err
}
