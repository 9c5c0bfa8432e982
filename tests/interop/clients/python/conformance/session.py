"""What the checks are made of."""

import json
import os
import time
import urllib.error
import urllib.request
import uuid

import pulsar

URL = os.environ.get("PULSAR_URL", "")
EARLIEST = pulsar.InitialPosition.Earliest
WAIT_MS = 10_000
# Nothing comes within it: as much as a busy machine needs to deliver what it should not.
SILENCE_MS = 700
CHECKS = {}


def check(name):
    def register(body):
        CHECKS[name] = body
        return body

    return register


class Session:
    """A client and a topic of its own for one check."""

    def __init__(self, token=None):
        self.client = connect(token or os.environ["PULSAR_TOKEN"])
        self.topic = f"persistent://public/default/conformance-{uuid.uuid4().hex}"

    def producer(self, topic=None, **options):
        return self.client.create_producer(topic or self.topic, **options)

    def consumer(self, subscription="s", topic=None, **options):
        options.setdefault("initial_position", EARLIEST)
        return self.client.subscribe(topic or self.topic, subscription, **options)

    def reader(self, start=pulsar.MessageId.earliest, **options):
        return self.client.create_reader(self.topic, start, **options)

    def send(self, count=3, **options):
        """So many messages, "0" the first; their ids."""
        producer = self.producer(**options)
        ids = [producer.send(str(at).encode()) for at in range(count)]
        producer.close()
        return ids

    def send_batch(self, count=3, **options):
        """So many messages in one batch."""
        producer = self.producer(batching_enabled=True, batching_max_publish_delay_ms=500, **options)
        for at in range(count):
            producer.send_async(str(at).encode(), lambda _result, _id: None)
        producer.flush()
        producer.close()


def connect(token, **options):
    quiet = pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
    authentication = pulsar.AuthenticationToken(token)
    return pulsar.Client(URL, authentication=authentication, logger=quiet, operation_timeout_seconds=10, **options)


def admin(method, path, body=None):
    """The status of a call of the admin API, and its answer."""
    request = urllib.request.Request(f"{os.environ['PULSAR_ADMIN_URL']}/admin/v2/{path}", method=method)
    request.add_header("Authorization", f"Bearer {os.environ['PULSAR_TOKEN']}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, None if body is None else json.dumps(body).encode()) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, None


def path(topic):
    return topic.replace("://", "/")


def take(consumer, count):
    """The payloads of so many messages, acknowledged."""
    payloads = []
    for _ in range(count):
        message = consumer.receive(WAIT_MS)
        payloads.append(message.data().decode())
        consumer.acknowledge(message)
    return payloads


def nothing(consumer, wait=SILENCE_MS):
    try:
        message = consumer.receive(wait)
    except pulsar.Timeout:
        return
    raise AssertionError(f"{message.data()} came")


def equal(left, right):
    assert left == right, f"{left}, expected {right}"


def refused(call):
    """By which error; part of the result, so that both brokers have to give the same."""
    try:
        call()
    except pulsar.PulsarException as error:
        return f"refused: {type(error).__name__}"
    raise AssertionError("it was not refused")


def until(condition, what):
    end = time.monotonic() + WAIT_MS / 1000
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def read_all(reader):
    payloads = []
    while reader.has_message_available():
        payloads.append(reader.read_next(WAIT_MS).data().decode())
    return payloads


def partitioned(s, count=3):
    status, _ = admin("PUT", f"{path(s.topic)}/partitions", count)
    equal(status, 204)


TYPES = {
    "exclusive": pulsar.ConsumerType.Exclusive,
    "failover": pulsar.ConsumerType.Failover,
    "shared": pulsar.ConsumerType.Shared,
    "key shared": pulsar.ConsumerType.KeyShared,
}
