"""What clients do besides writing and reading from the start: topics, settings, offsets by time, idempotence."""

import subprocess
import time

import clients


def checks(ring):
    """Pairs of a name and what to do."""
    return [
        ("librdkafka: topics and settings", lambda: confluent_admin(ring)),
        ("kafka-python: topics and settings", lambda: kafka_python_admin(ring)),
        ("librdkafka: offsets by time, and records deleted", lambda: confluent_offsets(ring)),
        ("librdkafka: a consumer at the end is woken by the next record", lambda: confluent_tail(ring)),
        ("kcat: lists the cluster", lambda: kcat_lists(ring)),
    ]


def confluent(ring):
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as error:
        raise clients.Skip(str(error))
    return confluent_kafka, confluent_kafka.admin, confluent_kafka.admin.AdminClient({"bootstrap.servers": ring.bootstrap})


def confluent_admin(ring):
    kafka, api, admin = confluent(ring)
    new = [api.NewTopic("admin-c", 3, config={"retention.ms": "60000"}), api.NewTopic("admin c", 1)]
    made = admin.create_topics(new, operation_timeout=10)
    made["admin-c"].result(30)
    assert failure(made["admin c"]).args[0].code() == kafka.KafkaError.TOPIC_EXCEPTION
    assert len(admin.list_topics(timeout=10).topics["admin-c"].partitions) == 3
    resource = api.ConfigResource(api.ConfigResource.Type.TOPIC, "admin-c")
    described = lambda: admin.describe_configs([resource])[resource].result(30)
    assert described()["retention.ms"].value == "60000"
    change = api.ConfigResource(api.ConfigResource.Type.TOPIC, "admin-c", incremental_configs=[
        api.ConfigEntry("retention.ms", "120000", incremental_operation=api.AlterConfigOpType.SET)])
    admin.incremental_alter_configs([change])[change].result(30)
    assert described()["retention.ms"].value == "120000"
    admin.create_partitions([api.NewPartitions("admin-c", 5)])["admin-c"].result(30)
    until = time.monotonic() + 10
    while len(admin.list_topics("admin-c", timeout=10).topics["admin-c"].partitions) != 5:
        assert time.monotonic() < until, "the new partitions do not show"
    cluster = admin.describe_cluster().result(30)
    assert len(cluster.nodes) >= 1 and cluster.cluster_id
    admin.delete_topics(["admin-c"], operation_timeout=10)["admin-c"].result(30)
    assert "admin-c" not in admin.list_topics(timeout=10).topics


def failure(future):
    try:
        future.result(30)
    except Exception as error:
        return error
    raise AssertionError("it was not refused")


def kafka_python_admin(ring):
    try:
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic
    except ImportError as error:
        raise clients.Skip(str(error))
    admin = KafkaAdminClient(bootstrap_servers=ring.bootstrap)
    admin.create_topics([NewTopic("admin-k", 2, -1)])
    assert "admin-k" in admin.list_topics()
    described = admin.describe_topics(["admin-k"])
    assert len(described[0]["partitions"]) == 2, described
    admin.delete_topics(["admin-k"])
    assert "admin-k" not in admin.list_topics()
    admin.close()


def confluent_offsets(ring):
    kafka, api, admin = confluent(ring)
    topic = "offsets-c"
    ring.run("topic", "create", topic)
    producer = kafka.Producer({"bootstrap.servers": ring.bootstrap, "linger.ms": 100})
    for number in range(100):
        producer.produce(topic, b"%d" % number, partition=0, timestamp=1_000_000 + number * 10)
    assert producer.flush(clients.PATIENCE) == 0
    consumer = kafka.Consumer({"bootstrap.servers": ring.bootstrap, "group.id": "unused"})
    at = lambda time: consumer.offsets_for_times([kafka.TopicPartition(topic, 0, time)], 30)[0].offset
    assert [at(1_000_000), at(1_000_005), at(1_000_500)] == [0, 1, 50]
    assert at(9_000_000) in (-1, 100), "librdkafka shows no record as the end"
    place = kafka.TopicPartition(topic, 0, 10)
    deleted = admin.delete_records([place])[kafka.TopicPartition(topic, 0)].result(30)
    assert deleted.low_watermark == 10
    assert consumer.get_watermark_offsets(kafka.TopicPartition(topic, 0), 30) == (10, 100)
    consumer.close()


def confluent_tail(ring):
    kafka, _, _ = confluent(ring)
    topic = "tail-c"
    ring.run("topic", "create", topic)
    consumer = kafka.Consumer({"bootstrap.servers": ring.bootstrap, "group.id": "unused", "fetch.wait.max.ms": 20_000,
                               "enable.partition.eof": True})
    consumer.assign([kafka.TopicPartition(topic, 0, 0)])
    end = consumer.poll(clients.PATIENCE)
    assert end.error() and end.error().code() == kafka.KafkaError._PARTITION_EOF
    producer = kafka.Producer({"bootstrap.servers": ring.bootstrap, "linger.ms": 0})
    for number in range(20):
        producer.produce(topic, b"%d" % number)
        producer.flush(clients.PATIENCE)
        began, message = time.monotonic(), consumer.poll(clients.PATIENCE)
        while message.error():
            message = consumer.poll(clients.PATIENCE)
        assert message.value() == b"%d" % number
        assert time.monotonic() - began < 10, "a waiting fetch was not woken"
    consumer.close()


def kcat_lists(ring):
    import shutil
    if not shutil.which("kcat"):
        raise clients.Skip("kcat is not installed")
    out = subprocess.run(["kcat", "-b", ring.bootstrap, "-L"], capture_output=True, timeout=clients.PATIENCE)
    assert out.returncode == 0 and b"broker" in out.stdout, out.stderr
