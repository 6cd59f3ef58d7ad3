"""A broker in a temporary folder, on loopback: Esker's standalone, or one node of Apache Kafka for comparison."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

PATIENCE = 60  # seconds: far longer than a start takes


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_ready(process, http):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, "esker ended"
        try:
            urllib.request.urlopen(f"http://{http}/readyz", timeout=1)
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("esker did not become ready")


class Broker:
    """`bootstrap` is where Kafka clients go."""

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, command, **more):
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, **more)


class Esker(Broker):
    def __init__(self, program, auto_create, bookies="1", sets=()):
        self.folder = tempfile.mkdtemp(prefix="esker-broker-")
        self.quic, self.bootstrap, self.http = (f"127.0.0.1:{port}" for port in free_ports(3))
        data = os.path.join(self.folder, "data")
        self.ca = os.path.join(data, "tls", "ca.pem")
        more = ["--auto-create-topics"] if auto_create else []
        self.begin([program, "standalone", "--data", data, "--quic", self.quic, "--kafka", self.bootstrap,
                    "--http", self.http, "--bookies", bookies, *more, *(f"--set={each}" for each in sets)])
        wait_ready(self.process, self.http)


class ApacheKafka(Broker):
    """KRaft, one node that is controller and broker."""

    def __init__(self, kit, auto_create):
        self.folder = tempfile.mkdtemp(prefix="esker-broker-")
        self.bootstrap, controller = (f"127.0.0.1:{port}" for port in free_ports(2))
        properties = os.path.join(self.folder, "server.properties")
        with open(properties, "w") as out:
            out.write(f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{self.bootstrap}
controller.listener.names=CONTROLLER
log.dirs={self.folder}/data
num.partitions=4
auto.create.topics.enable={str(auto_create).lower()}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
""")
        run = os.path.join(kit, "bin", "kafka-run-class.sh")
        storage = [run, "kafka.tools.StorageTool"]
        cluster = subprocess.run([*storage, "random-uuid"], check=True, capture_output=True, text=True).stdout.split()[-1]
        subprocess.run([*storage, "format", "-t", cluster, "-c", properties], check=True, capture_output=True)
        self.begin([run, "kafka.Kafka", properties], env=dict(os.environ, KAFKA_HEAP_OPTS="-Xmx1g"))
        self.wait_ready()

    def wait_ready(self):
        host, port = self.bootstrap.split(":")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            assert self.process.poll() is None, "Kafka ended"
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("Kafka did not become ready")
