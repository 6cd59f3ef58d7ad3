"""Consumers that read in their own zone (KIP-392): the owner is in one, the consumer and another gateway in the other."""

import subprocess
import time
import urllib.request

import clients

TOPIC, COUNT, BATCH = "near", 600, 20


class Zones:
    def __init__(self, ring, writer):
        if not ring.cluster:
            raise clients.Skip("it takes two gateways")
        self.ring = ring
        self.written = [(1_700_000_000_000 + number, b"key", b"%d " % number + b"x" * 1000, []) for number in range(COUNT)]
        for gateway in ring.gateways:
            self.put_in_zone(gateway)
        ring.run("topic", "create", TOPIC, "--config", "segment.bytes=65536")
        for first in range(0, COUNT, BATCH):
            writer.write(TOPIC, 0, "none", self.written[first : first + BATCH])
        listed = ring.run("partition", "list", TOPIC, "--json").decode()
        self.owner, self.other = ring.gateways
        if f'"{self.other["id"]}"' in listed:
            self.owner, self.other = self.other, self.owner

    def put_in_zone(self, gateway):
        """Its zone is its name."""
        with open(gateway["config"]) as file:
            config = file.read()
        assert "\n[gateway]\n" in config or config.startswith("[gateway]\n")
        with open(gateway["config"], "w") as file:
            file.write(config.replace("[gateway]\n", f'[gateway]\nzone = "{gateway["id"]}"\n', 1))
        command = [self.ring.cluster, "cluster", "restart", gateway["id"], "--data", self.ring.folder]
        subprocess.run(command, check=True, capture_output=True, timeout=clients.PATIENCE)
        until = time.monotonic() + clients.PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://{gateway['addresses']['http']}/readyz", timeout=1)
                return
            except OSError:
                assert time.monotonic() < until, "a gateway did not come back"
                time.sleep(0.05)

    def counted(self, gateway, name):
        metrics = urllib.request.urlopen(f"http://{gateway['addresses']['http']}/metrics", timeout=10).read().decode()
        return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(f"esker_gateway_{name}"))

    def read(self, client):
        sent, served = self.counted(self.owner, "kafka_sent_near"), self.counted(self.other, "kafka_near_bytes")
        found = client.read(TOPIC, 0, COUNT, rack=self.other["id"])
        assert [offset for offset, _ in found] == list(range(COUNT)), f"{len(found)} records"
        assert all(got == expected for (_, got), expected in zip(found, self.written))
        if client.name == "kcat":
            return  # It is as old as the distribution's librdkafka: 2.0.2 stays at the owner.
        assert self.counted(self.owner, "kafka_sent_near") > sent, "the owner did not send the consumer to its zone"
        served = self.counted(self.other, "kafka_near_bytes") - served
        assert served > COUNT * 1000 / 2, f"{served} bytes were read in the zone"


def checks(ring, present):
    """Pairs of a name and what to do."""
    able = [client for client in present if getattr(client, "knows_racks", False)]
    writers = [client for client in able if client.name not in clients.PLAIN_WRITERS]
    made = []

    def prepare():
        if not writers:
            raise clients.Skip("no client that knows racks is here")
        made.append(Zones(ring, writers[0]))

    yield "each gateway is in a zone of its own", prepare
    for client in able if made else []:
        yield f"{client.name} reads in its zone what is closed, and the rest at the owner", lambda: made[0].read(client)
