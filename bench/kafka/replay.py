"""Replays that begin in the bucket and end on bookies: from the start, from an offset, from a time. Against standalone alone: it is
started anew before, so that nothing of the topic is in memory."""

import json
import time
import urllib.request

import clients

TOPIC, COUNT, BATCH = "replay", 400, 20
BEGAN, STEP = 1_700_000_000_000, 1000  # milliseconds; each record is a second younger than the next


def record(number):
    return (BEGAN + STEP * number, b"key %d" % number, b"%d " % number + b"x" * 1000, [])


class Replay:
    """The topic, written once."""

    def __init__(self, ring, writer):
        if ring.cluster:
            raise clients.Skip("standalone alone")
        self.ring, self.written = ring, [record(number) for number in range(COUNT)]
        ring.run("topic", "create", TOPIC, "--config", "segment.bytes=65536", "--config", "local.retention.ms=0")
        for first in range(0, COUNT, BATCH):
            writer.write(TOPIC, 0, "none", self.written[first : first + BATCH])
        self.boundary = self.wait_for_bucket()
        ring.restart()

    def wait_for_bucket(self):
        """Offset behind the last record that no bookie has any more."""
        until = time.monotonic() + clients.PATIENCE
        while True:
            listed = self.ring.run("segment", "list", TOPIC, "--json").splitlines()
            gone = [s["end_offset"] for s in map(json.loads, listed) if s["tier"] == "object"]
            if len(gone) >= 3:
                assert COUNT // 4 < gone[-1] < COUNT, f"the boundary is at {gone[-1]}"
                return gone[-1]
            assert time.monotonic() < until, f"segments do not go to the bucket: {listed}"
            time.sleep(0.2)

    def object_reads(self):
        metrics = urllib.request.urlopen(f"http://{self.ring.http}/metrics", timeout=10).read().decode()
        return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("esker_gateway_object_reads"))

    def read(self, client, start):
        """Everything from there on is as it was written, and some of it came out of the bucket if it had to."""
        before = self.object_reads()
        found = client.read(TOPIC, 0, COUNT - start, start)
        assert [offset for offset, _ in found] == list(range(start, COUNT)), f"{len(found)} records from {start} on"
        for offset, got in found:
            same = got == self.written[offset] if client.name != "native" else got[1:3] == self.written[offset][1:3]
            assert same, f"record {offset}: {got!r:.200}"
        assert start >= self.boundary or self.object_reads() > before, "nothing was read from the bucket"

    def from_start(self, client):
        self.read(client, 0)

    def from_offsets(self, client):
        for start in [1, self.boundary // 2, self.boundary - 1, self.boundary, self.boundary + 1]:
            self.read(client, start)

    def from_times(self, client):
        for number in [0, self.boundary // 2, self.boundary - 1, self.boundary, self.boundary + 1, COUNT - 1]:
            # Of the record itself, and between it and the one before.
            for back in [0, STEP // 2]:
                found = client.at_time(TOPIC, 0, BEGAN + STEP * number - back)
                assert found == number, f"time of record {number}, less {back} ms: offset {found}"
        self.read(client, client.at_time(TOPIC, 0, BEGAN + STEP * (self.boundary // 2)))


def checks(ring, present):
    """Pairs of a name and what to do."""
    able = [client for client in present if hasattr(client, "at_time")]
    writers = [client for client in able if client.name not in clients.PLAIN_WRITERS]
    made = []

    def prepare():
        if not writers:
            raise clients.Skip("no client that dates records is here")
        made.append(Replay(ring, writers[0]))

    yield f"{COUNT} records are in the bucket and on bookies", prepare
    for client in able if made else []:
        for what, work in [("the start", made[0].from_start), ("offsets", made[0].from_offsets), ("times", made[0].from_times)]:
            yield f"{client.name} replays from {what} over the boundary of the bucket", lambda: work(client)
