#!/usr/bin/env python3
"""Consumer groups of real clients: they grow and shrink under load, a coordinator is killed, and in the end every record
was processed, each once after the final commit.

    pip install confluent-kafka kafka-python
    bench/kafka/group_load.py --bootstrap 127.0.0.1:9092,127.0.0.1:9093
    bench/kafka/group_load.py --bootstrap ... --pids 123,456     (process ids of gateways 1 and 2)

Each scenario prints one line; the exit status is 0 only if all are good. With `--pids` a last scenario kills the gateway that
coordinates the group (SIGKILL) in the middle of it, and goes on with the other one.
"""

import argparse
import collections
import os
import signal
import sys
import threading
import time
import uuid

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 6


class Ledger:
    """What was committed, by whoever did it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = collections.Counter()
        self.errors = []

    def processed(self, values):
        with self.lock:
            self.seen.update(values)

    def failed(self, text):
        with self.lock:
            self.errors.append(text)


class LibrdkafkaMember(threading.Thread):
    """Reads, commits synchronously what it read, and only then counts it."""

    def __init__(self, ledger, bootstrap, topic, group, settings):
        super().__init__(daemon=True)
        self.mine = 0
        self.ledger, self.topic, self.stopping = ledger, topic, threading.Event()
        self.consumer = ck.Consumer({
            "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
            "auto.offset.reset": "earliest", **settings,
        })

    def run(self):
        # By partition: read and not yet committed. What is taken away comes again to whoever has it next.
        pending = {}

        def forget(_consumer, partitions):
            for partition in partitions:
                pending.pop(partition.partition, None)

        self.consumer.subscribe([self.topic], on_revoke=forget, on_lost=forget)
        try:
            while not self.stopping.is_set():
                for message in filter(self.usable, self.consumer.consume(200, 0.3)):
                    values, _ = pending.get(message.partition(), ([], 0))
                    pending[message.partition()] = (values + [message.value()], message.offset() + 1)
                if pending:
                    self.commit(pending)
        finally:
            self.consumer.close()

    def commit(self, pending):
        try:
            ends = [ck.TopicPartition(self.topic, partition, end) for partition, (_, end) in pending.items()]
            committed = [at.partition for at in self.consumer.commit(offsets=ends, asynchronous=False) if not at.error]
        except ck.KafkaException as error:
            if not expected(error.args[0]):
                self.ledger.failed(f"commit: {error}")
            return
        for partition in committed:
            values, _ = pending.pop(partition, ([], 0))
            self.ledger.processed(values)
            self.mine += len(values)

    def usable(self, message):
        error = message.error()
        if error and error.fatal():
            self.ledger.failed(str(error))
        return error is None

    def stop(self):
        self.stopping.set()


def expected(error):
    """A commit during a rebalance, or while the coordinator moves, fails: the records come again."""
    names = {"REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "NOT_COORDINATOR", "_NO_OFFSET",
             "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "STALE_MEMBER_EPOCH", "_TIMED_OUT", "_WAIT_COORD",
             "FENCED_MEMBER_EPOCH", "REQUEST_TIMED_OUT", "_TRANSPORT", "_ASSIGNMENT_LOST", "_STATE", "_DESTROY", "_WAIT_CACHE"}
    return error.name() in names


class PythonMember(threading.Thread):
    """The same with kafka-python."""

    def __init__(self, ledger, bootstrap, topic, group, assignor):
        super().__init__(daemon=True)
        from kafka import KafkaConsumer
        self.mine = 0
        self.ledger, self.topic, self.stopping = ledger, topic, threading.Event()
        self.consumer = KafkaConsumer(
            bootstrap_servers=bootstrap.split(","), group_id=group, enable_auto_commit=False,
            auto_offset_reset="earliest", partition_assignment_strategy=[assignor], session_timeout_ms=10_000,
            heartbeat_interval_ms=1000)

    def run(self):
        from kafka import errors
        from kafka.structs import OffsetAndMetadata
        self.consumer.subscribe([self.topic])
        try:
            while not self.stopping.is_set():
                polled = self.consumer.poll(300, max_records=200)
                if not polled:
                    continue
                ends = {p: OffsetAndMetadata(m[-1].offset + 1, "", -1) for p, m in polled.items()}
                try:
                    self.consumer.commit(ends)
                    done = [m.value for messages in polled.values() for m in messages]
                    self.ledger.processed(done)
                    self.mine += len(done)
                except errors.KafkaError as error:
                    if not (error.retriable or isinstance(error, errors.CommitFailedError)):
                        self.ledger.failed(f"commit: {error!r}")
        finally:
            self.consumer.close()

    def stop(self):
        self.stopping.set()


class Load(threading.Thread):
    """Numbered records to all partitions in turn, until told to stop."""

    def __init__(self, bootstrap, topic, rate):
        super().__init__(daemon=True)
        self.producer = ck.Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
        self.topic, self.rate, self.count, self.failures, self.stopping = topic, rate, 0, [], threading.Event()

    def run(self):
        while not self.stopping.is_set():
            for _ in range(50):
                self.producer.produce(self.topic, f"{self.count}".encode(), partition=self.count % PARTITIONS,
                                      on_delivery=lambda error, _: self.failures.append(error) if error else None)
                self.count += 1
            self.producer.poll(0)
            time.sleep(50 / self.rate)
        self.producer.flush(60)


def coordinator(bootstrap, group):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    found = admin.describe_consumer_groups([group], request_timeout=10)[group].result()
    return found.coordinator.id


def wait(what, condition, seconds=90):
    until = time.time() + seconds
    while not condition():
        if time.time() > until:
            raise TimeoutError(f"{what} takes longer than {seconds} s")
        time.sleep(0.1)


def scenario(args, name, member, kill):
    topic, group = f"groups-{name}-{uuid.uuid4().hex[:6]}", f"g-{name}-{uuid.uuid4().hex[:6]}"
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    for made in admin.create_topics([NewTopic(topic, PARTITIONS)]).values():
        made.result(30)
    ledger, load, members, everybody = Ledger(), Load(args.bootstrap, topic, args.rate), [], []
    started = time.time()

    def work():
        """Everybody who is in the group gets records from now on."""
        before = [(one, one.mine) for one in members]
        wait("a share for everybody", lambda: all(one.mine > mine for one, mine in before))

    def grow():
        members.append(member(ledger, args.bootstrap, topic, group))
        everybody.append(members[-1])
        members[-1].start()
        work()

    def shrink():
        gone = members.pop(0)
        gone.stop()
        gone.join(30)
        work()

    try:
        load.start()
        grow()
        grow()
        grow()
        if kill:
            kill(coordinator(args.bootstrap, group))
            work()
        shrink()
        grow()
        shrink()
        shrink()
    except TimeoutError as error:
        ledger.failed(str(error))
    load.stopping.set()
    load.join(90)
    wanted = {f"{number}".encode() for number in range(load.count)}
    try:
        wait("reading all", lambda: wanted <= set(ledger.seen))
    except TimeoutError as error:
        ledger.failed(f"{error}: {len(wanted - set(ledger.seen))} records are missing")
    for left in members:
        left.stop()
    for left in members:
        left.join(30)
    again = sum(count - 1 for count in ledger.seen.values())
    ledger.errors += [str(failure) for failure in load.failures[:3]]
    if again and not kill:
        ledger.failed(f"{again} records were committed twice")
    check = ck.Consumer({"bootstrap.servers": args.bootstrap, "group.id": group})
    ends = check.committed([ck.TopicPartition(topic, p) for p in range(PARTITIONS)], 20)
    for end in ends:
        high = check.get_watermark_offsets(end, 20)[1]
        if end.offset != high:
            ledger.failed(f"partition {end.partition}: committed {end.offset}, written {high}")
    check.close()
    verdict = "ok" if not ledger.errors else "FAILED: " + "; ".join(ledger.errors[:5])
    shares = "+".join(str(one.mine) for one in everybody)
    print(f"{name:28} {load.count:6} records, members {shares}, {again} again, {time.time() - started:.1f} s  {verdict}",
          flush=True)
    return not ledger.errors


def librdkafka(**settings):
    return lambda ledger, bootstrap, topic, group: LibrdkafkaMember(
        ledger, bootstrap, topic, group, {name.replace("_", "."): value for name, value in settings.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--rate", type=int, default=600, help="records per second")
    parser.add_argument("--only", help="scenarios whose name holds this")
    parser.add_argument("--pids", help="process ids of gateways 1, 2, ...: the coordinator of one scenario is killed")
    args = parser.parse_args()

    from kafka.coordinator.assignors import roundrobin
    classic = {"session_timeout_ms": 10_000, "heartbeat_interval_ms": 1000}
    scenarios = {
        "librdkafka-range": librdkafka(partition_assignment_strategy="range", **classic),
        "librdkafka-roundrobin": librdkafka(partition_assignment_strategy="roundrobin", **classic),
        "librdkafka-cooperative": librdkafka(partition_assignment_strategy="cooperative-sticky", **classic),
        "librdkafka-consumer-uniform": librdkafka(group_protocol="consumer", group_remote_assignor="uniform"),
        "librdkafka-consumer-range": librdkafka(group_protocol="consumer", group_remote_assignor="range"),
        "python-roundrobin": lambda *all: PythonMember(*all, roundrobin.RoundRobinPartitionAssignor),
    }
    try:
        from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
        scenarios["python-sticky"] = lambda *all: PythonMember(*all, StickyPartitionAssignor)
    except ImportError:
        print("python-sticky                SKIP: this kafka-python has no sticky assignor")
    good = True
    for name, member in scenarios.items():
        if not args.only or args.only in name:
            good &= scenario(args, name, member, None)
    if args.pids:
        pids = [int(pid) for pid in args.pids.split(",")]
        killed = []

        def kill(broker):
            if not killed:
                killed.append(broker)
                os.kill(pids[broker - 1], signal.SIGKILL)

        name = args.only if args.only in scenarios else "librdkafka-cooperative"
        good &= scenario(args, name + "-kill", scenarios[name], kill)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
