//go:build kafka

package kafka

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"rebeca/internal/process"
)

// version is that of the broker; pom.xml names the same.
const version = "4.1.0"

// startLimit bounds the start of the broker: 3 s on an idle machine.
const startLimit = 2 * time.Minute

// broker is one node of Apache Kafka in KRaft mode, on ports and in folders of its own.
type broker struct {
	address    string // of the clients' listener
	controller string
	jars       string
	dir        string
	process    *process.Process
}

// startBroker starts a broker that ends with the test. Topics are not made by themselves there.
func startBroker(t *testing.T) *broker {
	t.Helper()
	jars, err := fetchJars()
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{address: freeAddress(t), controller: freeAddress(t), jars: jars, dir: t.TempDir()}
	if err := os.WriteFile(b.path("server.properties"), []byte(b.properties()), 0o600); err != nil {
		t.Fatal(err)
	}
	format := b.java("kafka.tools.StorageTool", "format", "--cluster-id", "cmViZWNhLXRlc3QtMDAwMQ", "--config", b.path("server.properties"))
	if said, err := exec.Command(format[0], format[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("formatting the broker's storage: %v\n%s", err, said)
	}
	b.start(t)
	t.Cleanup(func() { b.process.Kill() })
	return b
}

// start runs the broker on what its folder holds and waits until it serves.
func (b *broker) start(t *testing.T) {
	t.Helper()
	command := b.java("kafka.Kafka", b.path("server.properties"))
	var err error
	if b.process, err = process.Start(b.path("broker.log"), command[0], command[1:]...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	err = process.Until(ctx, "the broker serves", func() (bool, error) {
		select {
		case <-b.process.Done():
			return false, errors.New("it ended")
		default:
		}
		answer, err := b.client().Metadata(ctx, &kafka.MetadataRequest{})
		return err == nil && len(answer.Brokers) == 1, nil
	})
	if err != nil {
		b.process.Kill()
		t.Fatalf("%v; it said:\n%s", err, b.process.Tail(30))
	}
}

// client returns a client without cached metadata, for one request.
func (b *broker) client() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(b.address), Timeout: 5 * time.Second, Transport: &kafka.Transport{}}
}

// createTopic makes a topic as an operator of the broker would.
func (b *broker) createTopic(t *testing.T, name string, partitions int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := b.client().CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: name, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	if err == nil {
		err = answer.Errors[name]
	}
	if err != nil {
		t.Fatalf("creating topic %s: %v", name, err)
	}
}

func (b *broker) path(name string) string { return filepath.Join(b.dir, name) }

func (b *broker) java(args ...string) []string {
	return append([]string{"java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", filepath.Join(b.jars, "*")}, args...)
}

// properties is the broker's configuration: one node that is its own controller, so every internal topic has one replica.
func (b *broker) properties() string {
	return fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
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
`, b.address, b.controller, b.path("data"))
}

// fetchJars returns the folder of the broker's jars in the per-user cache, filled by Maven the first time.
func fetchJars() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache: %w", err)
	}
	jars := filepath.Join(cache, "rebeca", "kafka", version)
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
	said, err := exec.Command("mvn", "-B", "-q", "-f", "pom.xml", "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+partial).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fetching the broker with Maven: %w\n%s", err, said)
	}
	if _, err := os.Stat(filepath.Join(partial, "kafka_2.13-"+version+".jar")); err != nil {
		return "", fmt.Errorf("fetching the broker with Maven: pom.xml names another version: %w", err)
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", err
	}
	return jars, os.Rename(partial, jars)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := process.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		t.Fatal(err)
	}
	return address
}
