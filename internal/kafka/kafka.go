// Package kafka runs one node of Apache Kafka on Java 17, for the tests and measurements that need the real broker. Its jars come by
// Maven, once, into the per-user cache; nothing of it is linked or shipped.
package kafka

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/segmentio/kafka-go"

	"rebeca/internal/process"
)

// Version is that of the broker; pom.xml names the same.
const Version = "4.1.0"

// startLimit bounds the start of the broker: 3 s on an idle machine.
const startLimit = 2 * time.Minute

//go:embed pom.xml
var pom []byte

// Broker is one node in KRaft mode, its own controller, on ports and in a folder of its own. Topics are not made by themselves there.
type Broker struct {
	Address    string // host:port of the clients' listener
	advertised string // host:port that clients are told to come to
	controller string
	jars       string
	dir        string
	process    *process.Process
}

// Start runs a broker on a folder, which it formats when it is missing or empty, and waits until it serves. The caller ends it with
// Kill.
func Start(dir string) (*Broker, error) { return StartBehind(dir, "") }

// StartBehind is Start of a broker that tells its clients to come to another address, that of a proxy; empty means its own.
func StartBehind(dir, advertise string) (*Broker, error) {
	b := &Broker{dir: dir, advertised: advertise}
	var err error
	if b.jars, err = fetchJars(); err != nil {
		return nil, err
	}
	for _, a := range []*string{&b.Address, &b.controller} {
		if *a, err = process.FreeAddress(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the broker's folder: %w", err)
	}
	if err := os.WriteFile(b.path("server.properties"), []byte(b.properties()), 0o600); err != nil {
		return nil, fmt.Errorf("configuring the broker: %w", err)
	}
	if err := b.format(); err != nil {
		return nil, err
	}
	return b, b.Restart()
}

// format prepares the broker's storage unless it was done before.
func (b *Broker) format() error {
	if _, err := os.Stat(b.path("data/meta.properties")); err == nil {
		return nil
	}
	c := b.java("kafka.tools.StorageTool", "format", "--cluster-id", "cmViZWNhLXRlc3QtMDAwMQ", "--config", b.path("server.properties"))
	if said, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("formatting the broker's storage: %w\n%s", err, said)
	}
	return nil
}

// Restart runs a broker that has ended again, at the same address and on what its folder holds, and waits until it serves.
func (b *Broker) Restart() error {
	command := b.java("kafka.Kafka", b.path("server.properties"))
	var err error
	if b.process, err = process.Start(b.path("broker.log"), command[0], command[1:]...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	err = process.Until(ctx, "the broker serves", func() (bool, error) {
		select {
		case <-b.process.Done():
			return false, errors.New("it ended")
		default:
		}
		c := b.Client()
		defer closeIdle(c)
		answer, err := c.Metadata(ctx, &kafka.MetadataRequest{})
		return err == nil && len(answer.Brokers) == 1, nil
	})
	if err != nil {
		b.process.Kill()
		return fmt.Errorf("%w; it said:\n%s", err, b.process.Tail(30))
	}
	return nil
}

// Kill ends the broker at once, as a power cut would.
func (b *Broker) Kill() { b.process.Kill() }

// Terminate asks the broker to end and waits up to limit.
func (b *Broker) Terminate(limit time.Duration) error { return b.process.Terminate(limit) }

// Tail returns the last lines of what the broker printed.
func (b *Broker) Tail(lines int) string { return b.process.Tail(lines) }

// Done is closed when the broker's process has ended; Restart makes another.
func (b *Broker) Done() <-chan struct{} { return b.process.Done() }

// PID returns the id of the broker's process.
func (b *Broker) PID() int { return b.process.PID() }

// CPU returns the processor time the broker has used.
func (b *Broker) CPU() time.Duration { return b.process.CPU() }

// closeIdle ends the goroutines of a client, which the library otherwise keeps for ever.
func closeIdle(c *kafka.Client) { c.Transport.(*kafka.Transport).CloseIdleConnections() }

// Client returns a client without cached metadata, for one request.
func (b *Broker) Client() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(b.Address), Timeout: 5 * time.Second, Transport: &kafka.Transport{}}
}

// CreateTopic makes a topic as an operator of the broker would.
func (b *Broker) CreateTopic(name string, partitions int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := b.Client()
	defer closeIdle(c)
	answer, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: name, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	if err == nil {
		err = answer.Errors[name]
	}
	if err != nil {
		return fmt.Errorf("creating topic %s: %w", name, err)
	}
	return nil
}

func (b *Broker) path(name string) string { return filepath.Join(b.dir, name) }

func (b *Broker) java(args ...string) []string {
	return append([]string{"java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", filepath.Join(b.jars, "*")}, args...)
}

// properties is the broker's configuration: one node that is its own controller, so every internal topic has one replica.
func (b *Broker) properties() string {
	return fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[4]s
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
`, b.Address, b.controller, b.path("data"), cmp.Or(b.advertised, b.Address))
}

// fetchJars returns the folder of the broker's jars in the per-user cache, filled by Maven the first time.
func fetchJars() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache: %w", err)
	}
	jars := filepath.Join(cache, "rebeca", "kafka", Version)
	switch _, err := os.Stat(jars); {
	case err == nil:
		return jars, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("looking for the broker: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(jars), 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(jars), ".partial-")
	if err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	defer os.RemoveAll(partial)
	project := filepath.Join(partial, "pom.xml")
	if err := os.WriteFile(project, pom, 0o600); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	said, err := exec.Command("mvn", "-B", "-q", "-f", project, "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+partial).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fetching the broker with Maven: %w\n%s", err, said)
	}
	if _, err := os.Stat(filepath.Join(partial, "kafka_2.13-"+Version+".jar")); err != nil {
		return "", fmt.Errorf("fetching the broker with Maven: pom.xml names another version: %w", err)
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", err
	}
	return jars, os.Rename(partial, jars)
}
