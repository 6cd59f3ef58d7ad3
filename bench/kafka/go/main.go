// Writes and reads one partition with a Go client, for the ring of clients.
//
//	ring franz|kafka-go write BOOTSTRAP TOPIC PARTITION CODEC   records on stdin
//	ring franz|kafka-go read BOOTSTRAP TOPIC PARTITION COUNT    records on stdout, with offsets
//
// One record per line: [offset TAB] timestamp in ms TAB key TAB value TAB name:value;name:value - texts as hexadecimal, null as "-".
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Far longer than anything takes.
const patience = 30 * time.Second

type header struct {
	name  string
	value []byte
}

type record struct {
	offset    int64
	timestamp int64
	key       []byte
	value     []byte
	headers   []header
}

type client interface {
	write(ctx context.Context, bootstrap, topic string, partition int, codec string, records []record) error
	read(ctx context.Context, bootstrap, topic string, partition, count int) ([]record, error)
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("six arguments are wanted, not %d", len(args))
	}
	clients := map[string]client{"franz": franz{}, "kafka-go": segmentio{}}
	client, known := clients[args[0]]
	if !known {
		return fmt.Errorf("unknown client %q", args[0])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	partition, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	if args[1] == "write" {
		records, err := parse()
		if err != nil {
			return err
		}
		return client.write(ctx, args[2], args[3], partition, args[5], records)
	}
	count, err := strconv.Atoi(args[5])
	if err != nil {
		return err
	}
	records, err := client.read(ctx, args[2], args[3], partition, count)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for _, r := range records {
		headers := make([]string, 0, len(r.headers))
		for _, h := range r.headers {
			headers = append(headers, text([]byte(h.name))+":"+text(h.value))
		}
		fmt.Fprintf(out, "%d\t%d\t%s\t%s\t%s\n", r.offset, r.timestamp, text(r.key), text(r.value), strings.Join(headers, ";"))
	}
	return out.Flush()
}

func text(data []byte) string {
	if data == nil {
		return "-"
	}
	return hex.EncodeToString(data)
}

func data(text string) ([]byte, error) {
	if text == "-" {
		return nil, nil
	}
	return hex.DecodeString(text)
}

func parse() ([]record, error) {
	var records []record
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 4 {
			return nil, fmt.Errorf("a line with %d fields", len(fields))
		}
		timestamp, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return nil, err
		}
		r := record{timestamp: timestamp}
		if r.key, err = data(fields[1]); err != nil {
			return nil, err
		}
		if r.value, err = data(fields[2]); err != nil {
			return nil, err
		}
		for _, pair := range strings.Split(fields[3], ";") {
			name, value, found := strings.Cut(pair, ":")
			if !found {
				continue
			}
			nameBytes, err := data(name)
			if err != nil {
				return nil, err
			}
			valueBytes, err := data(value)
			if err != nil {
				return nil, err
			}
			r.headers = append(r.headers, header{string(nameBytes), valueBytes})
		}
		records = append(records, r)
	}
	return records, lines.Err()
}
