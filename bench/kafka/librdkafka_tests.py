#!/usr/bin/env python3
"""Runs librdkafka's own tests, each in a process of its own, and puts what several runs gave into one table.

    librdkafka_tests.py run --broker esker --esker PROGRAM --kit KAFKA --tests FOLDER --results FOLDER [NAME...]
    librdkafka_tests.py table RESULTS
The list: every test that needs a broker. Those that bring a mock cluster of their own test the client alone. Quick mode,
but for tests of which quick mode leaves parts out, or all: those run whole.
`librdkafka-tests.sh` builds what is wanted and calls this. Exit status of `run`: 0 if nothing failed that has no reason in
REASONS."""

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import time

from brokers import ApacheKafka, Esker

LIMIT = 900  # seconds for one test; the slowest takes several minutes
KAFKA_VERSION = "4.1.1"
# Tests that can't pass against Esker, and why.
TRANSACTIONS = "transactions are not served yet"
ACCESS_LISTS = "access lists are not served yet"
BROKER_SETTINGS = "sets a Kerberos setting of a broker: there is none, and settings of gateways stand in their files"
REASONS = {
    "0055_producer_latency": "one part of it: " + TRANSACTIONS,
    "0061_consumer_lag": "one part of it: " + TRANSACTIONS,
    "0098_consumer_txn": TRANSACTIONS,
    "0103_transactions": TRANSACTIONS,
    "0129_fetch_aborted_msgs": TRANSACTIONS,
    "0137_barrier_batch_consume": "one part of it: " + TRANSACTIONS,
    "0109_auto_create_topics": "one part of it: " + ACCESS_LISTS,
    "0115_producer_auth": ACCESS_LISTS,
    "0119_consumer_auth": ACCESS_LISTS,
    "0081_admin/do_test_CreateAcls": ACCESS_LISTS,
    "0081_admin/do_test_DescribeAcls": ACCESS_LISTS,
    "0081_admin/do_test_DeleteAcls": ACCESS_LISTS,
    "0081_admin/do_test_UserScramCredentials": "SASL is not served yet",
    "0077_compaction": "cleanup.policy=compact is not served yet; Kafka 4 refuses the segment.bytes that the test sets",
    "0011_produce_batch/test_message_single_partition_record_fail": "cleanup.policy=compact is not served yet",
    "0081_admin/do_test_AlterConfigs": BROKER_SETTINGS,
    "0081_admin/do_test_IncrementalAlterConfigs": BROKER_SETTINGS,
    "0101_fetch_from_follower": "asks for brokers in three racks",
}
# With the new group protocol alone.
KAFKA_TOO = "fails on Kafka too: "
CONSUMER_REASONS = {
    "0045_resubscribe_with_regex": "counts on Kafka's matching of patterns being a heartbeat behind that of names; here the first "
                                   "answer has all",
    "0045_subscribe_many_updates": "answers within a millisecond: the client sends no heartbeat any more after an unsubscribe and a "
                                   "subscribe while one is under way",
    "0045_subscribe_update_topic_remove": KAFKA_TOO + "counts on the classic protocol's order of calls",
    "0045_subscribe_update_non_exist_and_partchange": KAFKA_TOO + "counts on the classic protocol's order of calls",
}
# Tests that are many in one: each part is run and told for itself.
PARTS = {
    "0011_produce_batch": [
        "test_single_partition", "test_partitioner", "test_per_message_partition_flag",
        "test_message_partitioner_wo_per_message_flag", "test_message_single_partition_record_fail",
    ],
    "0081_admin": ["do_test_" + part for part in [
        "CreateTopics", "DeleteTopics", "CreatePartitions", "CreateAcls", "DescribeAcls", "DeleteAcls", "AlterConfigs",
        "IncrementalAlterConfigs", "DescribeConfigs", "DeleteRecords", "ListConsumerGroups", "DescribeConsumerGroups",
        "DescribeConfigs_groups", "DescribeConsumerGroups_with_authorized_ops", "DescribeTopics", "DescribeCluster",
        "DeleteGroups", "DeleteConsumerGroupOffsets", "ListOffsets",
        "AlterConsumerGroupOffsets", "ListConsumerGroupOffsets", "UserScramCredentials",
    ]],
}


def listed(tests):
    """(name, scenario, whether quick mode leaves parts of it out, whether it has groups) of the tests that need a broker."""
    source = open(os.path.join(tests, "test.c")).read()
    body = source[source.index("struct test tests[]"):]
    body = body[:body.index("{NULL}")]
    sources = {}
    for file in os.listdir(tests):
        if re.match(r"\d{4}-.*\.c(pp)?$", file):
            text = open(os.path.join(tests, file), errors="replace").read()
            leaves_out = "SUB_TEST(" in text or re.search(r"if \(test_quick\) \{", text) is not None
            sources.update((name, (leaves_out, "subscribe" in text)) for name in re.findall(r"\bmain_(\w+)\(", text))
    found = []
    for entry in body.split("_TEST(")[1:]:
        name, flags = re.match(r"(\w+),\s*([\w |]+)", entry).groups()
        if "LOCAL" in flags or "MANUAL" in flags or flags.strip() == "TEST_F_KNOWN_ISSUE" or "mock" in name:
            continue
        scenario = "noautocreate" if 'scenario = "noautocreate"' in entry else "default"
        for part in PARTS.get(name, [None]):
            found.append((f"{name}/{part}" if part else name, scenario, *sources.get(name, (False, False))))
    return found


class Runner:
    def __init__(self, arguments, broker, scenario):
        self.arguments, self.broker, self.scenario = arguments, broker, scenario

    def run(self, tests):
        """{title: (state, seconds, first failure)} of tests with one number: the runner runs these together."""
        arguments = self.arguments
        number, whole = tests[0][0][:4], any(test[2] for test in tests)
        part = tests[0][0].partition("/")[2]
        with tempfile.TemporaryDirectory(prefix="esker-rdkafka-") as folder:
            conf, report = os.path.join(folder, "test.conf"), os.path.join(folder, "report.json")
            with open(conf, "w") as out:
                out.write(f"bootstrap.servers={self.broker.bootstrap}\ntest.topic.random=true\n")
                out.write(f"test.timeout.multiplier={arguments.patience}\n")
            environment = dict(
                os.environ, TESTS=number, RDKAFKA_TEST_CONF=conf, TEST_REPORT=report, TEST_SCENARIO=self.scenario,
                TEST_KAFKA_VERSION=KAFKA_VERSION, KAFKA_PATH=arguments.kit, BROKERS=self.broker.bootstrap,
                TEST_CONSUMER_GROUP_PROTOCOL=arguments.protocol,
                LD_LIBRARY_PATH=f"{arguments.tests}/../src:{arguments.tests}/../src-cpp")
            environment.pop("CI", None)
            if part:
                environment["SUBTESTS"] = part + ":"
            title = tests[0][0].replace("/", "-")
            log = os.path.join(arguments.results, f"{arguments.broker}-{arguments.protocol}-{title}.log")
            with open(log, "wb") as out:
                try:
                    subprocess.run(["./test-runner", "-p1", "-L", *([] if whole else ["-Q"])], cwd=arguments.tests,
                                   env=environment, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=LIMIT)
                except subprocess.TimeoutExpired:
                    return {test[0]: ("FAILED", LIMIT, f"not done after {LIMIT} s") for test in tests}
            text = re.sub(r"\x1b\[[0-9;]*m", "", open(log, errors="replace").read())
            try:
                said = json.load(open(report))["tests"]
            except (OSError, ValueError, KeyError):
                said = {}
            found = {}
            for title, *_ in tests:
                name = title.partition("/")[0]
                state, seconds = (said.get(name, {}).get(key, other) for key, other in [("state", "FAILED"), ("duration", 0)])
                reason = why(text, name, state)
                if part and f"[ {part}:" not in text:
                    # The runner itself passes over what the new group protocol does not have.
                    state = "SKIPPED" if arguments.protocol == "consumer" else "FAILED"
                    reason = "the part was not run"
                found[title] = (state, seconds, reason)
            if all(state == "PASSED" for state, *_ in found.values()):
                os.remove(log)
            return found


def why(text, name, state):
    """What the runner says of a test that did not pass, without the line number of its source."""
    if state == "PASSED":
        return ""
    said = re.findall(r"SKIPPING TEST: ([^\[\n]*)", text) if state == "SKIPPED" else []
    said = [line for line in said if "test flags" not in line]
    said = said or re.findall(rf"### Test \"{name}.*?failed at .*?###\n(.*)", text) or text.strip().splitlines()[-1:]
    line = said[0] if said else "the runner ended"
    line = re.sub(r"rdkafkatest_rnd[0-9a-f]+_?", "", line)
    return line[:200].replace("|", "/")


def reason_for(name, protocol):
    return REASONS.get(name) or (CONSUMER_REASONS.get(name) if protocol == "consumer" else None)


def run(arguments):
    tests = [t for t in listed(arguments.tests) if not arguments.names or any(n in t[0] for n in arguments.names)]
    path = os.path.join(arguments.results, f"{arguments.broker}-{arguments.protocol}.json")
    results = json.load(open(path)) if os.path.exists(path) else {}
    if arguments.missing:
        tests = [t for t in tests if results.get(t[0], {}).get("state") not in ("PASSED", "SKIPPED")]
    if arguments.protocol == "consumer":
        tests = [t for t in tests if t[3]]
    bad = []
    for scenario in ["default", "noautocreate"]:
        these = {}
        for test in tests:
            if test[1] == scenario:
                these.setdefault(test[0] if "/" in test[0] else test[0][:4], []).append(test)
        if not these:
            continue
        auto_create = scenario == "default"
        broker = (Esker(arguments.esker, auto_create, arguments.bookies) if arguments.broker == "esker"
                  else ApacheKafka(arguments.kit, auto_create))
        try:
            runner = Runner(arguments, broker, scenario)
            with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
                # The longest first, so that none is left running alone at the end.
                order = sorted(these.values(), key=lambda tests: not tests[0][2])
                for done in concurrent.futures.as_completed([pool.submit(runner.run, tests) for tests in order]):
                    for name, (state, seconds, reason) in done.result().items():
                        results[name] = {"state": state, "seconds": round(seconds, 1), "why": reason}
                        print(f"{state:8} {name:50} {seconds:6.1f} s  {reason}", flush=True)
                        if state == "FAILED" and not reason_for(name, arguments.protocol):
                            bad.append(name)
                    with open(path, "w") as out:
                        json.dump(results, out, indent=1)
            assert broker.process.poll() is None, "the broker ended"
        finally:
            if arguments.keep_log:
                os.replace(os.path.join(broker.folder, "log"), arguments.keep_log)
            broker.stop()
    print(f"{len(tests) - len(bad)} passed, {len(bad)} failed" + (": " + " ".join(bad) if bad else ""))
    sys.exit(1 if bad else 0)


def table(arguments):
    columns = ["kafka-classic", "esker-classic", "kafka-consumer", "esker-consumer"]
    results = {}
    for column in columns:
        path = os.path.join(arguments.results, column + ".json")
        results[column] = json.load(open(path)) if os.path.exists(path) else {}
    names = sorted({name for column in columns for name in results[column]})
    word = {"PASSED": "passed", "FAILED": "**failed**", "SKIPPED": "skipped"}
    print("| test | Kafka | Esker | Kafka, consumer protocol | Esker, consumer protocol | reason |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        found = [results[column].get(name, {}) for column in columns]
        reason = REASONS.get(name) or CONSUMER_REASONS.get(name) or ""
        if all(f.get("state", "PASSED") == "PASSED" for f in found[1::2]):
            reason = ""
        elif not reason:
            reason = next((f["why"] for f in found[1::2] if f.get("why")), "")
        cells = [word.get(f.get("state"), "-") for f in found]
        print(f"| {name} | " + " | ".join(cells) + f" | {reason} |")
    for column in columns:
        states = [f["state"] for f in results[column].values()]
        print(f"\n{column}: " + ", ".join(f"{states.count(s)} {s.lower()}" for s in ["PASSED", "FAILED", "SKIPPED"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.set_defaults(work=run)
    one.add_argument("--broker", choices=["esker", "kafka"], required=True)
    one.add_argument("--esker")
    one.add_argument("--kit", required=True)
    one.add_argument("--tests", required=True)
    one.add_argument("--results", required=True)
    one.add_argument("--protocol", choices=["classic", "consumer"], default="classic", help="of the consumers in the tests")
    one.add_argument("--bookies", default="3", help="some tests ask for three copies")
    one.add_argument("--jobs", type=int, default=2, help="tests at the same time")
    one.add_argument("--patience", default="1.5", help="by how much the tests' own time limits are stretched")
    one.add_argument("--missing", action="store_true", help="only what has not passed yet")
    one.add_argument("--keep-log", metavar="FILE", help="where the broker's log goes")
    one.add_argument("names", nargs="*", help="parts of names; all if none")
    two = commands.add_parser("table")
    two.set_defaults(work=table)
    two.add_argument("results")
    arguments = parser.parse_args()
    arguments.work(arguments)


if __name__ == "__main__":
    main()
