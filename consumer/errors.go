package consumer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Retriable reports whether the same request may succeed later: the network, a broker that is away, a leader that
// moved. Too large records, missing rights and invalid requests never will.
func Retriable(err error) bool {
	var code kafka.Error
	if errors.As(err, &code) {
		switch code {
		case kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.Unknown, kafka.GroupLoadInProgress,
			kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup:
			return true
		}
		return code.Temporary()
	}
	return !errors.Is(err, errClosed)
}

// errClosed marks the client's own end.
var errClosed = errors.New("the client is closed")

// tooLarge reports whether the broker refuses records of this size.
func tooLarge(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge)
}

// explain puts what the library leaves unsaid into words: brokers answer a wrong password or a missing handshake by
// closing the connection.
func (c *Client) explain(err error) error {
	for strings.HasPrefix(err.Error(), "kafka.(*Client)") || strings.HasPrefix(err.Error(), "fetch request error") {
		inner := errors.Unwrap(err) // the library's call, which says nothing to a user
		if inner == nil {
			break
		}
		err = inner
	}
	var network net.Error
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case errors.Is(err, kafka.SASLAuthenticationFailed), closed && c.options.SASL.Mechanism != "":
		return fmt.Errorf("the broker refused user %q by %s: wrong name, password or mechanism (%w)",
			c.options.SASL.Username, c.options.SASL.Mechanism, err)
	case closed:
		return fmt.Errorf("the broker closed the connection: is it of this port's protocol, TLS or SASL? (%w)", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return fmt.Errorf("no answer in time (%w)", err)
	}
	return err
}

// cause finds why the Transport knows nothing about a topic: as long as no broker has ever answered, it calls every
// topic unknown.
func (c *Client) cause(ctx context.Context, err error) error {
	if c.isClosed() {
		return errClosed
	}
	if errors.Is(err, protocol.ErrNoTopic) {
		if _, unheard := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}}); unheard != nil {
			return unheard
		}
	}
	return err
}
