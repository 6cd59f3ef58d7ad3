#!/usr/bin/env python3
"""Records of 1 KiB and of 100 bytes written and read over both doors of one broker. `speed.sh` builds what is wanted.

One producer and one reader at a time, four partitions, acks from the ack quorum, no compression. The Kafka door's numbers are
those that rdkafka_performance prints, the native door's those of esker-bench; both count the bytes of values."""

import argparse
import json
import os
import re
import subprocess
import time

from brokers import Esker

PARTITIONS = 4
LIMIT = 120  # seconds for one measurement


def performance(arguments, broker, *options):
    """(records/s, MB/s) by its last line."""
    command = [f"{arguments.library}/examples/rdkafka_performance", "-b", broker.bootstrap, "-q", "-q", *options]
    environment = dict(os.environ, LD_LIBRARY_PATH=f"{arguments.library}/src")
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    found = re.findall(r"(\d+) msgs/s (?:and |\()([\d.]+) MB/s", run.stdout + run.stderr)
    assert found, (run.stdout + run.stderr)[-2000:]
    return int(found[-1][0]), float(found[-1][1])


def bench(arguments, broker, verb, *options):
    command = [arguments.bench, verb, "--server", broker.quic, "--ca", broker.ca, "--json", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


def measure(arguments, broker, size):
    count = arguments.bytes // size
    kafka, native = f"kafka-{size}", f"native-{size}"
    subprocess.run([arguments.esker, "topic", "create", kafka, "--partitions", str(PARTITIONS), "--server", broker.quic,
                    "--ca", broker.ca], check=True, capture_output=True)
    rows = []
    tuned = ["-X", "linger.ms=5", "-X", "batch.size=1000000", "-X", "queue.buffering.max.messages=1000000",
             "-X", "queue.buffering.max.kbytes=262144"]
    rows.append(("Kafka door, librdkafka", "produce",
                 *performance(arguments, broker, "-P", "-t", kafka, "-s", str(size), "-c", str(count), "-a", "-1", *tuned)))
    said = bench(arguments, broker, "produce", "--topic", native, "--partitions", str(PARTITIONS), "--producers", "1",
                 "--record-bytes", str(size), "--secs", str(arguments.secs), "--warm-up", "1", "--linger", "5ms")
    rows.append(("native door, esker-bench", "produce", *rates(said["produce"], size)))
    partitions = [word for number in range(PARTITIONS) for word in ("-p", str(number))]
    rows.append(("Kafka door, librdkafka", "consume",
                 *performance(arguments, broker, "-C", "-t", kafka, *partitions, "-o", "beginning", "-c", str(count))))
    said = bench(arguments, broker, "consume", "--topic", kafka)
    rows.append(("native door, esker-bench", "consume", *rates(said["consume"], size)))
    for door, verb, records, megabytes in rows:
        print(f"| {size} | {verb} | {door} | {records:,.0f} | {megabytes:.0f} |", flush=True)


def rates(said, size):
    records = said["records_per_second"]
    return records, records * size / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esker", required=True)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--library", required=True, help="librdkafka's folder")
    parser.add_argument("--bookies", default="1")
    parser.add_argument("--bytes", type=int, default=600_000_000, help="of values, written over the Kafka door")
    parser.add_argument("--secs", type=int, default=6, help="that the native door is written to")
    arguments = parser.parse_args()
    broker = Esker(arguments.esker, False, arguments.bookies)
    try:
        print("| record bytes | | | records/s | MB/s |\n| --: | --- | --- | --: | --: |", flush=True)
        for size in [1024, 100]:
            measure(arguments, broker, size)
            time.sleep(1)
    finally:
        broker.stop()


if __name__ == "__main__":
    main()
