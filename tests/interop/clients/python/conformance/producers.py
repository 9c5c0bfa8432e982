"""Producers and partitions."""

import threading
import time

import pulsar
from session import SILENCE_MS, WAIT_MS, admin, check, equal, nothing, partitioned, path, refused, take


@check("a producer's name")
def _(s):
    equal(s.producer(producer_name="someone").producer_name(), "someone")


@check("a name is taken")
def _(s):
    s.producer(producer_name="someone")
    return refused(lambda: s.producer(producer_name="someone"))


@check("sequence ids count from 0")
def _(s):
    producer = s.producer()
    equal(producer.last_sequence_id(), -1)
    producer.send(b"x")
    producer.send(b"x")
    equal(producer.last_sequence_id(), 1)


@check("sequence ids go on")
def _(s):
    producer = s.producer(initial_sequence_id=10)
    producer.send(b"x")
    equal(producer.last_sequence_id(), 11)


@check("an exclusive producer is alone")
def _(s):
    s.producer(access_mode=pulsar.ProducerAccessMode.Exclusive)
    return refused(lambda: s.producer())


@check("exclusive beside others is refused")
def _(s):
    s.producer()
    return refused(lambda: s.producer(access_mode=pulsar.ProducerAccessMode.Exclusive))


@check("an exclusive producer is waited for")
def _(s):
    first = s.producer(access_mode=pulsar.ProducerAccessMode.Exclusive)
    sent = []
    mode = pulsar.ProducerAccessMode.WaitForExclusive
    waiting = threading.Thread(target=lambda: sent.append(s.producer(access_mode=mode).send(b"x")))
    waiting.start()
    time.sleep(SILENCE_MS / 1000)
    equal(len(sent), 0)
    first.close()
    waiting.join(WAIT_MS / 1000)
    equal(len(sent), 1)


@check("fencing ends the former producer")
def _(s):
    first = s.producer(access_mode=pulsar.ProducerAccessMode.Exclusive)
    s.producer(access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing).send(b"x")
    return refused(lambda: first.send(b"y"))


@check("deduplication drops a repeated sequence id")
def _(s):
    s.topic = s.topic.replace("public/default", "public/dedup")
    consumer = s.consumer()
    producer = s.producer(producer_name="p")
    for sequence_id in (1, 2, 2, 1, 3):
        producer.send(str(sequence_id).encode(), sequence_id=sequence_id)
    equal(take(consumer, 3), ["1", "2", "3"])
    nothing(consumer)


@check("deduplication knows the last sequence id")
def _(s):
    s.topic = s.topic.replace("public/default", "public/dedup")
    producer = s.producer(producer_name="p")
    producer.send(b"x", sequence_id=7)
    producer.close()
    equal(s.producer(producer_name="p").last_sequence_id(), 7)


@check("a terminated topic takes no more")
def _(s):
    producer = s.producer()
    producer.send(b"x")
    status, _ = admin("POST", f"{path(s.topic)}/terminate")
    equal(status, 200)
    return refused(lambda: producer.send(b"y"))


@check("a producer goes on after an unload")
def _(s):
    consumer = s.consumer()
    producer = s.producer()
    producer.send(b"0")
    status, _ = admin("PUT", f"{path(s.topic)}/unload")
    assert status in (200, 204), status
    producer.send(b"1")
    # What was not acknowledged before the unload may come twice.
    while take(consumer, 1) != ["1"]:
        pass


@check("partitions are listed")
def _(s):
    partitioned(s)
    equal(s.client.get_topic_partitions(s.topic), [f"{s.topic}-partition-{at}" for at in range(3)])


@check("partitions are all used")
def _(s):
    partitioned(s)
    consumer = s.consumer()
    ids = s.send(30)
    equal({message_id.partition() for message_id in ids}, {0, 1, 2})
    equal(sorted(take(consumer, 30), key=int), [str(at) for at in range(30)])


@check("a key has one partition")
def _(s):
    partitioned(s)
    producer = s.producer()
    equal(len({producer.send(b"x", partition_key="k").partition() for _ in range(9)}), 1)


@check("one partition is a topic")
def _(s):
    partitioned(s)
    consumer = s.consumer(topic=s.topic + "-partition-1")
    s.producer(s.topic + "-partition-1").send(b"x")
    equal(take(consumer, 1), ["x"])


@check("partitions that exist are not made again")
def _(s):
    partitioned(s)
    status, _ = admin("PUT", f"{path(s.topic)}/partitions", 3)
    equal(status, 409)
