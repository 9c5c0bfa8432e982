"""What messages carry."""

import os
import time
from datetime import timedelta

import pulsar
from session import TYPES, WAIT_MS, check, equal, refused, take

CODECS = {
    "none": pulsar.CompressionType.NONE,
    "lz4": pulsar.CompressionType.LZ4,
    "zlib": pulsar.CompressionType.ZLib,
    "zstd": pulsar.CompressionType.ZSTD,
    "snappy": pulsar.CompressionType.SNAPPY,
}


def codec(compression, batching):
    def body(s):
        consumer = s.consumer()
        producer = s.producer(compression_type=compression, batching_enabled=batching)
        payloads = [bytes([at]) * 10_000 for at in range(3)]
        for payload in payloads:
            producer.send_async(payload, lambda _result, _id: None)
        producer.flush()
        equal([consumer.receive(WAIT_MS).data() == payload for payload in payloads], [True] * 3)

    return body


for name, compression in CODECS.items():
    check(f"codec {name}")(codec(compression, False))
    check(f"codec {name} in a batch")(codec(compression, True))


def round_trip(**sent):
    """One message that is sent with these options."""

    def receive(s):
        consumer = s.consumer()
        s.producer().send(b"x", **sent)
        return consumer.receive(WAIT_MS)

    return receive


@check("key")
def _(s):
    equal(round_trip(partition_key="k\u00e9y")(s).partition_key(), "k\u00e9y")


@check("ordering key")
def _(s):
    equal(round_trip(ordering_key="order")(s).ordering_key(), "order")


@check("properties")
def _(s):
    properties = {"a": "1", "b": "", "c": "\u00fc"}
    equal(round_trip(properties=properties)(s).properties(), properties)


@check("event time")
def _(s):
    equal(round_trip(event_timestamp=1_600_000_000_123)(s).event_timestamp(), 1_600_000_000_123)


@check("publish time")
def _(s):
    assert abs(round_trip()(s).publish_timestamp() / 1000 - time.time()) < 60


@check("an empty payload")
def _(s):
    consumer = s.consumer()
    s.producer().send(b"")
    equal(consumer.receive(WAIT_MS).data(), b"")


@check("delayed by a time span")
def _(s):
    consumer = s.consumer(consumer_type=TYPES["shared"])
    started = time.monotonic()
    s.producer().send(b"late", deliver_after=timedelta(milliseconds=1500))
    s.producer().send(b"now")
    equal(take(consumer, 2), ["now", "late"])
    assert time.monotonic() - started > 1.3


@check("delayed to a moment")
def _(s):
    consumer = s.consumer(consumer_type=TYPES["shared"])
    s.producer().send(b"late", deliver_at=int(time.time() * 1000) + 1500)
    s.producer().send(b"now")
    equal(take(consumer, 2), ["now", "late"])


@check("a delay does not count on exclusive")
def _(s):
    consumer = s.consumer()
    s.producer().send(b"late", deliver_at=int(time.time() * 1000) + 60_000)
    equal(take(consumer, 1), ["late"])


@check("a thousand in order")
def _(s):
    consumer = s.consumer()
    producer = s.producer(batching_enabled=True, block_if_queue_full=True)
    for at in range(1000):
        producer.send_async(str(at).encode(), lambda _result, _id: None)
    producer.flush()
    equal(take(consumer, 1000), [str(at) for at in range(1000)])


@check("chunks")
def _(s):
    consumer = s.consumer()
    payload = os.urandom(6_000_000)
    s.producer(chunking_enabled=True).send(payload)
    equal(consumer.receive(WAIT_MS).data() == payload, True)


@check("too big")
def _(s):
    producer = s.producer()
    return refused(lambda: producer.send(b"x" * 6_000_000))


@check("encryption")
def _(s):
    keys = os.environ["CONFORMANCE_KEYS"]
    reader = pulsar.CryptoKeyReader(f"{keys}/first.public.pem", f"{keys}/first.pkcs1.pem")
    consumer = s.consumer(crypto_key_reader=reader)
    s.producer(encryption_key="first", crypto_key_reader=reader).send(b"secret")
    equal(take(consumer, 1), ["secret"])


@check("non-persistent")
def _(s):
    topic = s.topic.replace("persistent", "non-persistent", 1)
    consumer = s.consumer(topic=topic)
    s.producer(topic).send(b"x")
    equal(take(consumer, 1), ["x"])
