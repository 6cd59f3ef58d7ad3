package main

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

type segmentio struct{}

// One partition, whatever the key.
type fixed int

func (f fixed) Balance(kafka.Message, ...int) int { return int(f) }

func (segmentio) write(ctx context.Context, bootstrap, topic string, partition int, codec string, records []record) error {
	codecs := map[string]kafka.Compression{
		"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	}
	writer := &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: topic, Balancer: fixed(partition), Compression: codecs[codec],
		RequiredAcks: kafka.RequireAll, BatchTimeout: 20 * time.Millisecond,
	}
	messages := make([]kafka.Message, 0, len(records))
	for _, r := range records {
		message := kafka.Message{Time: time.UnixMilli(r.timestamp), Key: r.key, Value: r.value}
		for _, h := range r.headers {
			message.Headers = append(message.Headers, kafka.Header{Key: h.name, Value: h.value})
		}
		messages = append(messages, message)
	}
	if err := writer.WriteMessages(ctx, messages...); err != nil {
		return err
	}
	return writer.Close()
}

func (segmentio) read(ctx context.Context, bootstrap, topic string, partition, count int) ([]record, error) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, Topic: topic, Partition: partition, MaxWait: 100 * time.Millisecond,
	})
	defer reader.Close()
	if err := reader.SetOffset(0); err != nil {
		return nil, err
	}
	var found []record
	for len(found) < count {
		got, err := reader.ReadMessage(ctx)
		if err != nil {
			return nil, fmt.Errorf("%d records of %d: %w", len(found), count, err)
		}
		r := record{offset: got.Offset, timestamp: got.Time.UnixMilli(), key: got.Key, value: got.Value}
		for _, h := range got.Headers {
			r.headers = append(r.headers, header{h.Key, h.Value})
		}
		found = append(found, r)
	}
	return found, nil
}
