package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type franz struct{}

func (franz) write(ctx context.Context, bootstrap, topic string, partition int, codec string, records []record) error {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(20*time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	out := make([]*kgo.Record, 0, len(records))
	for _, r := range records {
		made := &kgo.Record{
			Topic: topic, Partition: int32(partition), Timestamp: time.UnixMilli(r.timestamp), Key: r.key, Value: r.value,
		}
		for _, h := range r.headers {
			made.Headers = append(made.Headers, kgo.RecordHeader{Key: h.name, Value: h.value})
		}
		out = append(out, made)
	}
	return client.ProduceSync(ctx, out...).FirstErr()
}

func (franz) read(ctx context.Context, bootstrap, topic string, partition, count int) ([]record, error) {
	start := map[string]map[int32]kgo.Offset{topic: {int32(partition): kgo.NewOffset().At(0)}}
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumePartitions(start))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var found []record
	for len(found) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("%d records of %d: %w", len(found), count, err)
		}
		fetches.EachRecord(func(got *kgo.Record) {
			r := record{offset: got.Offset, timestamp: got.Timestamp.UnixMilli(), key: got.Key, value: got.Value}
			for _, h := range got.Headers {
				r.headers = append(r.headers, header{h.Key, h.Value})
			}
			found = append(found, r)
		})
	}
	return found, nil
}
