// Package broker embeds a development broker that speaks Kafka's protocol on a TCP port, in memory or with its log on
// disk: for the demo, the tests and `rebeca broker`. It is kfake, one goroutine without replication, and no broker for
// production.
package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Options of a broker.
type Options struct {
	Listen    string       // host:port; port 0 picks a free one; empty means 127.0.0.1:0
	Advertise string       // host:port that clients are told to come to; empty means the address that it listens on
	DataDir   string       // created if needed, kept over restarts and held by one broker at a time; empty keeps all in memory
	Logger    *slog.Logger // warnings and errors; nil discards them
}

// Broker is a running development broker of one node. Topics are made by admin requests only, never by being named.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	lock    *os.File // of the data directory; nil in memory
}

// Start listens and serves until Close. Clients are told the address that it advertises, so that must be one that they can reach. Its
// errors are one line: a port that is taken or a data directory that is taken or cannot be read is named.
func Start(o Options) (_ *Broker, err error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	// Listening first keeps a second broker on the same port away from the first one's data.
	listener, err := net.Listen("tcp", o.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("starting the broker: %s is taken by another process; choose another address", o.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("starting the broker: %w", err)
	}
	b := &Broker{addr: listener.Addr().String()}
	defer func() {
		if err != nil {
			_ = listener.Close() // kfake closes it on some of its errors only
			b.unlock()
		}
	}()
	gate := newGate(listener, o.Advertise)
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("rebeca-development"),
		kfake.DefaultNumPartitions(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return gate, nil }),
		kfake.WithLogger(logger{o.Logger}),
	}
	var left []open
	if o.DataDir != "" {
		if b.lock, err = lock(o.DataDir); err != nil {
			return nil, fmt.Errorf("starting the broker: %w", err)
		}
		if left, err = openTransactions(o.DataDir); err != nil {
			return nil, fmt.Errorf("starting the broker: %w", err)
		}
		options = append(options, kfake.DataDir(o.DataDir))
	}
	if b.cluster, err = kfake.NewCluster(options...); err != nil {
		return nil, fmt.Errorf("starting the broker on %s: %w", o.DataDir, err)
	}
	if len(left) > 0 {
		if err = b.markAborted(left, gate); err != nil {
			b.cluster.Close()
			return nil, fmt.Errorf("starting the broker on %s: ending the transactions of a broker that was killed: %w", o.DataDir, err)
		}
	}
	gate.open()
	return b, nil
}

// Addr returns host:port, with the port that was picked.
func (b *Broker) Addr() string { return b.addr }

// Cluster returns the broker's engine, by which tests inject faults.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// Close cuts all connections, writes what is in memory to the data directory and frees it and the port. Calling it twice is
// allowed.
func (b *Broker) Close() error {
	b.cluster.Close()
	b.unlock()
	return nil
}

// logger passes kfake's warnings and errors on; its information is a line per request.
type logger struct{ to *slog.Logger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.to.Error("broker: " + fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.to.Warn("broker: " + fmt.Sprintf(format, args...))
	}
}
