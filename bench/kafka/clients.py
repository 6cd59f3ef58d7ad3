"""One class per client. All write and read the same records: (timestamp_ms, key, value, headers), keys and values bytes
or None, headers a list of (str, bytes). `read` returns everything in a partition as [(offset, record)]."""

import datetime
import json
import os
import shutil
import subprocess
import time

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 30  # seconds: far longer than anything takes


class Skip(Exception):
    """The client, or this ability of it, is not here; the text says why."""


class Confluent:
    """librdkafka, by confluent-kafka."""

    name = "librdkafka"
    codecs = CODECS
    knows_racks = True

    def __init__(self, ring):
        try:
            import confluent_kafka
        except ImportError as error:
            raise Skip(f"confluent-kafka is not installed: {error}")
        self.kafka, self.ring = confluent_kafka, ring

    def write(self, topic, partition, codec, records):
        failures = []
        producer = self.kafka.Producer({
            "bootstrap.servers": self.ring.bootstrap, "compression.type": codec, "linger.ms": 50,
            "enable.idempotence": True,
        })
        for timestamp, key, value, headers in records:
            producer.produce(topic, value, key, partition, timestamp=timestamp, headers=headers,
                             on_delivery=lambda error, _: failures.append(error) if error else None)
        left = producer.flush(PATIENCE)
        assert not failures and left == 0, f"{failures[:3]}, {left} not delivered"

    def consumer(self, **more):
        return self.kafka.Consumer({
            "bootstrap.servers": self.ring.bootstrap, "group.id": "unused", "enable.auto.commit": False,
            "check.crcs": True, **more,
        })

    def at_time(self, topic, partition, time_ms):
        consumer = self.consumer()
        found = consumer.offsets_for_times([self.kafka.TopicPartition(topic, partition, time_ms)], PATIENCE)[0]
        assert not found.error, found.error
        consumer.close()
        return found.offset

    def read(self, topic, partition, count, start=0, rack=""):
        consumer = self.consumer(**{"client.rack": rack})
        consumer.assign([self.kafka.TopicPartition(topic, partition, start)])
        found, until = [], time.monotonic() + PATIENCE
        while len(found) < count and time.monotonic() < until:
            for message in consumer.consume(500, 0.5):
                assert not message.error(), message.error()
                record = (message.timestamp()[1], message.key(), message.value(), message.headers() or [])
                found.append((message.offset(), record))
        consumer.close()
        return found


class KafkaPython:
    name = "kafka-python"
    codecs = CODECS

    def __init__(self, ring):
        try:
            import kafka
        except ImportError as error:
            raise Skip(f"kafka-python is not installed: {error}")
        self.kafka, self.ring = kafka, ring

    def write(self, topic, partition, codec, records):
        producer = self.kafka.KafkaProducer(
            bootstrap_servers=self.ring.bootstrap, compression_type=None if codec == "none" else codec, linger_ms=50)
        sent = [producer.send(topic, value, key, headers, partition, timestamp)
                for timestamp, key, value, headers in records]
        for future in sent:
            future.get(PATIENCE)
        producer.close()

    def consumer(self, place):
        consumer = self.kafka.KafkaConsumer(
            bootstrap_servers=self.ring.bootstrap, group_id=None, enable_auto_commit=False, check_crcs=True)
        consumer.assign([place])
        return consumer

    def at_time(self, topic, partition, time_ms):
        place = self.kafka.TopicPartition(topic, partition)
        consumer = self.consumer(place)
        found = consumer.offsets_for_times({place: time_ms})[place]
        consumer.close()
        return found.offset

    def read(self, topic, partition, count, start=0):
        place = self.kafka.TopicPartition(topic, partition)
        consumer = self.consumer(place)
        consumer.seek(place, start)
        found, until = [], time.monotonic() + PATIENCE
        while len(found) < count and time.monotonic() < until:
            for message in consumer.poll(500).get(place, []):
                headers = [(key, value) for key, value in message.headers]
                found.append((message.offset, (message.timestamp, message.key, message.value, headers)))
        consumer.close()
        return found


class KafkaJs:
    """Its consumer knows groups only, so that it reads with one of its own per partition."""

    name = "kafkajs"
    codecs = ["none", "gzip"]  # the others are plug-ins

    def __init__(self, ring):
        self.ring = ring
        folder = ring.node_folder
        if not shutil.which("node"):
            raise Skip("node is not installed")
        if not os.path.isdir(os.path.join(folder, "node_modules", "kafkajs")):
            raise Skip(f"kafkajs is not installed in {folder}: copy package.json there and run npm install")
        self.folder = folder

    def write(self, topic, partition, codec, records):
        text = lambda data: None if data is None else data.decode("latin-1")
        self.run("write.js", {
            "brokers": [self.ring.bootstrap], "topic": topic, "codec": codec,
            "messages": [{"timestamp": str(t), "key": text(k), "value": text(v), "partition": partition,
                          "headers": {name: text(data) for name, data in h}} for t, k, v, h in records],
        })

    def read(self, topic, partition, count):
        if not topic.endswith(("none", "gzip")):
            raise Skip("kafkajs reads this codec with a plug-in only")
        data = lambda text: None if text is None else text.encode("latin-1")
        out = self.run("read.js", {"brokers": [self.ring.bootstrap], "topic": topic, "partition": partition, "count": count})
        found = []
        for m in map(json.loads, out.splitlines()):
            headers = [(name, data(value)) for name, values in m["headers"].items() for value in values]
            found.append((m["offset"], (m["timestamp"], data(m["key"]), data(m["value"]), headers)))
        return found

    def run(self, script, document):
        environment = dict(os.environ, NODE_PATH=os.path.join(self.folder, "node_modules"),
                           KAFKAJS_NO_PARTITIONER_WARNING="1")
        run = subprocess.run(["node", os.path.join(HERE, script)], input=json.dumps(document), text=True,
                             env=environment, capture_output=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout


class Kcat:
    """librdkafka of the distribution, an older one. One record per line, so that values hold no newline."""

    name = "kcat"
    codecs = CODECS
    knows_racks = True

    def __init__(self, ring):
        if not shutil.which("kcat"):
            raise Skip("kcat is not installed")
        self.ring = ring

    def write(self, topic, partition, codec, records):
        # Its own clock dates the records, and headers are per call: only keys and values are compared.
        lines = b"".join((key or b"") + b"\t" + (value or b"") + b"\n" for _, key, value, _ in records)
        command = ["kcat", "-b", self.ring.bootstrap, "-P", "-t", topic, "-p", str(partition), "-K", "\t", "-Z",
                   "-z", codec, "-X", "linger.ms=50"]
        run = subprocess.run(command, input=lines, capture_output=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr[-2000:]

    def at_time(self, topic, partition, time_ms):
        command = ["kcat", "-b", self.ring.bootstrap, "-Q", "-t", f"{topic}:{partition}:{time_ms}"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr[-2000:]
        return int(run.stdout.split()[-1])

    def read(self, topic, partition, count, start=0, rack=""):
        command = ["kcat", "-b", self.ring.bootstrap, "-C", "-t", topic, "-p", str(partition), "-o", str(start), "-e",
                   "-J", "-X", "check.crcs=true", *(["-X", f"client.rack={rack}"] if rack else [])]
        run = subprocess.run(command, capture_output=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr[-2000:]
        found = []
        for line in run.stdout.splitlines():
            m = json.loads(line)
            data = lambda text: None if text is None else text.encode()
            pairs = m.get("headers", [])
            headers = [(pairs[i], data(pairs[i + 1])) for i in range(0, len(pairs), 2)]
            found.append((m["offset"], (m["ts"], data(m["key"]), data(m["payload"]), headers)))
        return found


def to_line(record):
    """A record as the Java and Go programs take it; see java/Ring.java."""
    timestamp, key, value, headers = record
    text = lambda data: "-" if data is None else data.hex()
    pairs = ";".join(f"{name.encode().hex()}:{text(data)}" for name, data in headers)
    return f"{timestamp}\t{text(key)}\t{text(value)}\t{pairs}\n"


def from_line(line):
    offset, timestamp, key, value, pairs = line.split("\t")
    data = lambda text: None if text == "-" else bytes.fromhex(text)
    headers = [pair.split(":") for pair in pairs.split(";") if pair]
    headers = [(bytes.fromhex(name).decode(), data(text)) for name, text in headers]
    return int(offset), (int(timestamp), data(key), data(value), headers)


class Program:
    """A client with a program of its own that reads and writes lines."""

    codecs = CODECS
    groups = []

    def write(self, topic, partition, codec, records):
        self.call("write", topic, partition, codec, "".join(map(to_line, records)))

    def read(self, topic, partition, count):
        out = self.call("read", topic, partition, count, "")
        return [from_line(line) for line in out.splitlines()]

    def call(self, verb, topic, *rest):
        *arguments, lines = rest
        command = [*self.command, verb, self.ring.bootstrap, topic, *map(str, arguments)]
        run = subprocess.run(command, input=lines, text=True, capture_output=True, timeout=3 * PATIENCE)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout


class Java(Program):
    """kafka-clients, the reference; the next version of its group protocol too."""

    name = "java"
    groups = ["consumer", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"]

    def __init__(self, ring):
        self.ring = ring
        folder = os.path.join(ring.node_folder, "java")
        if not shutil.which("java"):
            raise Skip("java is not installed")
        if not os.path.isfile(os.path.join(folder, "Ring.class")):
            raise Skip("it needs javac and Maven, which brings kafka-clients")
        self.command = ["java", "-Xmx256m", "-cp", f"{folder}:{folder}/libs/*", "Ring"]

    def group(self, topic, protocol, count):
        """Reads the topic with members that come and go; (records, read again, committed, members that got any)."""
        return tuple(map(int, self.call("group", topic, protocol, count, "").split()))


class Go(Program):
    def __init__(self, ring):
        self.ring = ring
        program = os.path.join(ring.node_folder, "go-ring")
        if not os.path.isfile(program):
            raise Skip("it needs Go, and the modules in go/go.mod")
        self.command = [program, self.name]


class Franz(Go):
    name = "franz"


class KafkaGo(Go):
    """Its reader shows an empty value and a null one alike."""

    name = "kafka-go"


class Native:
    """Esker's own client, over QUIC, by its command line."""

    name = "native"
    codecs = CODECS

    def __init__(self, ring):
        self.ring = ring

    def write(self, topic, partition, codec, records):
        lines = b"".join((key or b"") + b"\t" + (value or b"") + b"\n" for _, key, value, _ in records)
        self.ring.run("produce", topic, "--partition", str(partition), "--compression", codec, "--key-delimiter", "\t",
                      input=lines)

    def at_time(self, topic, partition, time_ms):
        when = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.timezone.utc).isoformat(timespec="milliseconds")
        out = self.ring.run("consume", topic, "--partition", str(partition), "--from", f"time:{when}", "--max", "1",
                            "--format", "json")
        return json.loads(out)["offset"]

    def read(self, topic, partition, count, start=0):
        out = self.ring.run("consume", topic, "--partition", str(partition), "--from", f"offset:{start}", "--to-end",
                            "--format", "json")
        found = []
        for line in out.splitlines():
            m = json.loads(line)
            data = lambda text: None if text is None else text.encode()
            headers = [(name, data(value)) for name, value in m["headers"]]
            found.append((m["offset"], (m["timestamp"], data(m["key"]), data(m["value"]), headers)))
        return found


ALL = [Confluent, KafkaPython, KafkaJs, Kcat, Java, Franz, KafkaGo, Native]
# These date records themselves and have no headers of their own: keys and values are compared, and timestamps only
# between readers.
PLAIN_WRITERS = {"kcat", "native"}
# These show null where a value is empty.
BLURRING_READERS = {"kafka-go"}
