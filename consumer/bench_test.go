package consumer

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"rebeca/internal/broker"
	"rebeca/table"
)

// counting counts and signals every record.
type counting struct {
	n    *atomic.Int64
	seen func([]Record)
}

func (c counting) Handle(_ context.Context, records []Record, _ int64) error {
	c.n.Add(int64(len(records)))
	if c.seen != nil {
		c.seen(records)
	}
	return nil
}

func benchSetup(b *testing.B, partitions int) (*broker.Broker, *Client) {
	b.Helper()
	br, err := broker.Start(broker.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = br.Close() })
	if err := br.Cluster().CreateTopic("feedback", int32(partitions), nil); err != nil {
		b.Fatal(err)
	}
	c, err := NewClient(Options{Brokers: []string{br.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return br, c
}

// BenchmarkFetch reads events of 200 bytes from four partitions of the embedded broker in the same process.
func BenchmarkFetch(b *testing.B) {
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression()} {
		b.Run("bytes=200/partitions=4/codec="+name, func(b *testing.B) {
			const total, partitions = 400_000, 4
			br, c := benchSetup(b, partitions)
			o, err := kgo.NewClient(kgo.SeedBrokers(br.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec))
			if err != nil {
				b.Fatal(err)
			}
			value := make([]byte, 188)
			for i := range total {
				copy(value, fmt.Sprintf(`{"event_id":"%d","user_id":"%d"`, i, i*7919%100_000))
				o.Produce(b.Context(), &kgo.Record{Topic: "feedback", Partition: int32(i % partitions), Key: fmt.Appendf(nil, "user-%07d", i), Value: slices.Clone(value)}, nil)
			}
			if err := o.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			o.Close()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				var n atomic.Int64
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan error, partitions)
				for p := range int32(partitions) {
					part := &Partition{Client: c, Topic: "feedback", ID: p, Start: Earliest, Handler: counting{n: &n}}
					go func() { done <- part.Run(ctx) }()
				}
				for n.Load() < total {
					time.Sleep(time.Millisecond)
				}
				cancel()
				for range partitions {
					if err := <-done; err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N)*total/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkLatency measures from the call of Produce to the handler, one record at a time into an idle partition.
func BenchmarkLatency(b *testing.B) {
	_, c := benchSetup(b, 4)
	handled := make(chan time.Time, 1)
	var n atomic.Int64
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 4)
	for p := range int32(4) {
		part := &Partition{Client: c, Topic: "feedback", ID: p, Start: Earliest, Handler: counting{n: &n, seen: func(records []Record) {
			for range records {
				handled <- time.Now()
			}
		}}}
		go func() { done <- part.Run(ctx) }()
	}
	var took []time.Duration
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		if _, err := c.Produce(ctx, "feedback", int32(i%4), []Message{{Key: []byte("u"), Value: make([]byte, 200)}}); err != nil {
			b.Fatal(err)
		}
		took = append(took, (<-handled).Sub(start))
		time.Sleep(3 * time.Millisecond)
	}
	cancel()
	for range 4 {
		<-done
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkRelay sends images of 8 KiB from an outbox: one at a time, as they come on a quiet service, to the acknowledgement, and
// 500 together.
func BenchmarkRelay(b *testing.B) {
	_, c := benchSetup(b, 1)
	benchRelay(b, c, "feedback")
}

func benchRelay(b *testing.B, c *Client, topic string) {
	b.Helper()
	for _, batch := range []int{1, 500} {
		b.Run(fmt.Sprintf("bytes=8192/messages=%d", batch), func(b *testing.B) {
			o := newOutbox()
			acked := make(chan int, 100)
			r := &Relay{
				Client: c, Outbox: o, Topics: map[string]string{table.RoleGenerated: topic}, TransactionalID: "bench-0",
				OnAck: func(out []table.Outgoing, _ time.Time) { acked <- len(out) },
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			msgs := make([]table.Message, batch)
			for i := range msgs {
				msgs[i] = generated(i)
				msgs[i].Value = make([]byte, 8<<10)
			}
			var took []time.Duration
			b.SetBytes(int64(batch * 8 << 10))
			for b.Loop() {
				begun := time.Now()
				o.put(msgs...)
				for n := 0; n < batch; n += <-acked {
				}
				took = append(took, time.Since(begun))
			}
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
		})
	}
}
