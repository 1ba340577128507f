//go:build kafka

package kafka

import (
	"net"
	"testing"

	"rebeca/internal/kafka"
	"rebeca/internal/process"
)

// broker is a real broker with kcat beside it.
type broker struct{ *kafka.Broker }

// startBroker starts a broker that ends with the test.
func startBroker(t *testing.T) *broker {
	t.Helper()
	b, err := kafka.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return &broker{b}
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
