#!/usr/bin/env python3
"""Real Kafka clients against Esker. Each client writes with every codec that it has; the one before it in the ring, and the
native client, read it back: the same records in the same order at the same offsets. Then groups, what each admin client can
do, times and idempotence.

    ring.py --esker target/release/esker            starts `esker standalone` in a temporary folder
    ring.py --esker ... --cluster esker-bench       the same against 3 bookies and 2 gateways
    ring.py --esker ... --every-pair                all clients read what all wrote: three times as long
Python packages: requirements.txt. kafkajs: `npm install` in the folder given with --node. A client that is missing is
SKIPped with the reason. Exit status 0 only if nothing failed and at least one Kafka client ran."""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile

import admin
import clients
import near
import replay
from brokers import free_ports, wait_ready

RECORDS = 300


class Ring:
    """The broker, and how to reach it by both doors."""

    def __init__(self, arguments):
        self.esker, self.node_folder = arguments.esker, arguments.node
        self.folder, self.cluster = tempfile.mkdtemp(prefix="esker-ring-"), arguments.cluster
        if self.cluster:
            self.start_cluster(self.cluster)
        else:
            self.server, self.bootstrap, self.http = (f"127.0.0.1:{port}" for port in free_ports(3))
            self.ca = os.path.join(self.folder, "data", "tls", "ca.pem")
            self.start_standalone()

    def start_standalone(self):
        data = os.path.join(self.folder, "data")
        self.process = subprocess.Popen([self.esker, "standalone", "--data", data, "--quic", self.server, "--kafka",
                                         self.bootstrap, "--http", self.http])
        wait_ready(self.process, self.http)

    def restart(self):
        """The same standalone again, with nothing in memory."""
        self.stop()
        self.start_standalone()

    def start_cluster(self, bench):
        command = [bench, "cluster", "--metadata", "1", "--bookies", "3", "--gateways", "2", "--data", self.folder,
                   "--esker", self.esker, "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        cluster = json.loads(self.process.stdout.readline())
        self.gateways = [role for role in cluster["roles"] if role["role"] == "gateway"]
        self.server, self.ca = ",".join(g["addresses"]["quic"] for g in self.gateways), cluster["ca"]
        self.bootstrap = self.gateways[0]["addresses"]["kafka"]

    def run(self, *command, input=None):
        environment = dict(os.environ, ESKER_SERVER=self.server, ESKER_CA=self.ca)
        run = subprocess.run([self.esker, *command], input=input, capture_output=True, env=environment,
                             timeout=clients.PATIENCE)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def records(seed, plain):
    """Keys and values of all lengths, null and empty ones, headers with repeated names; text, so that all can show it."""
    rng = random.Random(seed)
    word = lambda length: "".join(rng.choice("abcdefghij 0123456789é漢") for _ in range(length)).encode()
    out = []
    for number in range(RECORDS):
        key = rng.choice([None, b"k%d" % (number % 7), word(40)])
        value = b"%d " % number + word(rng.choice([0, 1, 100, 2000]))
        headers = [] if plain else [("h", b"%d" % number), ("trace", word(8))][: rng.randrange(3)]
        if plain:
            key = key or b"none"
        elif number % 10 == 9:
            # Some clients write no record that has neither.
            key, value = key or b"tombstone", None if number % 20 == 9 else b""
        out.append((1_700_000_000_000 + number, key, value, headers))
    return out


class Report:
    def __init__(self):
        self.failed, self.passed, self.skipped = [], 0, []

    def check(self, what, work):
        try:
            work()
            self.passed += 1
            print(f"ok    {what}", flush=True)
        except clients.Skip as reason:
            self.skipped.append(what)
            print(f"SKIP  {what}: {reason}", flush=True)
        except Exception as error:  # a client may raise anything
            self.failed.append(what)
            print(f"FAIL  {what}: {type(error).__name__}: {str(error)[:600]}", flush=True)


def compare(written, found, plain):
    assert len(found) == len(written), f"{len(found)} records of {len(written)}"
    assert [offset for offset, _ in found] == list(range(len(written))), "offsets have gaps"
    for number, (expected, (_, got)) in enumerate(zip(written, found)):
        same = expected[1:3] == got[1:3] if plain else expected == got
        assert same, f"record {number}: wrote {expected!r:.300}, read {got!r:.300}"


def check_group(ring, client, protocol):
    """Every record once or, after a rebalance, twice; and all of them committed."""
    topic, count = f"group-{client.name}-{protocol.split('.')[-1]}", 1200
    ring.run("topic", "create", topic, "--partitions", "6")
    for partition in range(6):
        ring.run("produce", topic, "--partition", str(partition), input=b"record\n" * (count // 6))
    seen, again, committed, members = client.group(topic, protocol, count)
    assert (seen, committed) == (count, count), f"{seen} of {count} records were read, {committed} are committed"
    assert again == 0, f"{again} records were read by two members that both went as they should"
    assert members > 1, "one member read it all"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esker", required=True)
    parser.add_argument("--cluster", metavar="ESKER_BENCH")
    parser.add_argument("--node", default="node-clients", help="folder in which kafkajs is installed")
    parser.add_argument("--without", metavar="NAME,...", default="", help="clients that are left out")
    parser.add_argument("--every-pair", action="store_true", help="all read what all wrote, not each what the next one wrote")
    arguments = parser.parse_args()
    left_out = [name for name in arguments.without.split(",") if name]
    ring, report, present = Ring(arguments), Report(), []
    try:
        for kind in (kind for kind in clients.ALL if kind.name not in left_out):
            report.check(f"{kind.name} is here", lambda: present.append(kind(ring)))
        for place, writer in enumerate(present):
            # In a ring the one before reads, and the native client, through the other door.
            readers = present if arguments.every_pair else [
                reader for reader in present if reader is present[place - 1] or reader.name == "native"]
            plain = writer.name in clients.PLAIN_WRITERS
            for number, codec in enumerate(writer.codecs):
                topic, written = f"ring-{writer.name}-{codec}", records(number, plain)
                ring.run("topic", "create", topic, "--partitions", "2")
                report.check(f"{writer.name} writes {codec}", lambda: writer.write(topic, 1, codec, written))
                for reader in readers:
                    expected = written if reader.name not in clients.BLURRING_READERS else [
                        (t, key or None, value or None, headers) for t, key, value, headers in written]
                    report.check(f"{reader.name} reads what {writer.name} wrote with {codec}",
                                 lambda: compare(expected, reader.read(topic, 1, len(written)), plain or reader.name == "native"))
        for client in present:
            for protocol in getattr(client, "groups", []):
                report.check(f"a group of {client.name} with {protocol.split('.')[-1]} grows and shrinks",
                             lambda: check_group(ring, client, protocol))
        for name, work in itertools.chain(admin.checks(ring), replay.checks(ring, present), near.checks(ring, present)):
            report.check(name, work)
        assert ring.process.poll() is None, "the broker ended"
    finally:
        ring.stop()
    print(f"{report.passed} passed, {len(report.failed)} failed, {len(report.skipped)} skipped")
    sys.exit(1 if report.failed or len(present) < 2 else 0)


if __name__ == "__main__":
    main()
