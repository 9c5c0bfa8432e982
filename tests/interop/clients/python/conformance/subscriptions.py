"""Subscriptions and acknowledgments."""

import re

import pulsar
from session import EARLIEST, SILENCE_MS, TYPES, WAIT_MS, check, equal, nothing, refused, take, until


def receive_by_type(kind):
    def body(s):
        consumer = s.consumer(consumer_type=kind)
        s.send(20)
        equal(sorted(take(consumer, 20), key=int), [str(at) for at in range(20)])
        nothing(consumer)

    return body


def batch_by_type(kind):
    def body(s):
        consumer = s.consumer(consumer_type=kind)
        s.send_batch(20)
        equal(take(consumer, 20), [str(at) for at in range(20)])
        nothing(consumer)

    return body


for name, kind in TYPES.items():
    check(f"receive {name}")(receive_by_type(kind))
    check(f"batch {name}")(batch_by_type(kind))


@check("exclusive refuses a second consumer")
def _(s):
    s.consumer()
    return refused(lambda: s.consumer())


@check("types of a subscription do not mix")
def _(s):
    s.consumer(consumer_type=TYPES["shared"])
    return refused(lambda: s.consumer(consumer_type=TYPES["failover"]))


@check("failover goes on at the next consumer")
def _(s):
    active, standby = (s.consumer(consumer_type=TYPES["failover"]) for _ in range(2))
    s.send(2)
    try:
        message = active.receive(3000)
    except pulsar.Timeout:
        active, standby = standby, active
        message = active.receive(WAIT_MS)
    active.acknowledge(message)
    active.close()
    equal(take(standby, 1), ["1"])


@check("shared spreads over consumers")
def _(s):
    consumers = [s.consumer(consumer_type=TYPES["shared"], receiver_queue_size=5) for _ in range(2)]
    s.send(10)
    for consumer in consumers:
        take(consumer, 1)


@check("key shared keeps a key at one consumer")
def _(s):
    consumers = [s.consumer(consumer_type=TYPES["key shared"]) for _ in range(2)]
    producer = s.producer()
    for at in range(40):
        producer.send(b"x", partition_key=f"key-{at % 10}")
    seen = [set(), set()]
    total = 0
    for at, consumer in enumerate(consumers):
        while total < 40:
            try:
                message = consumer.receive(SILENCE_MS)
            except pulsar.Timeout:
                break
            consumer.acknowledge(message)
            seen[at].add(message.partition_key())
            total += 1
    equal(total, 40)
    equal(seen[0] & seen[1], set())


def sticky(ranges):
    return pulsar.ConsumerKeySharedPolicy(pulsar.KeySharedMode.Sticky, sticky_ranges=ranges)


@check("key shared by ranges")
def _(s):
    low = s.consumer(consumer_type=TYPES["key shared"], key_shared_policy=sticky([(0, 32767)]))
    high = s.consumer(consumer_type=TYPES["key shared"], key_shared_policy=sticky([(32768, 65535)]))
    producer = s.producer()
    for at in range(20):
        producer.send(b"x", partition_key=f"key-{at}")
    counts = []
    for consumer in (low, high):
        keys = []
        while True:
            try:
                message = consumer.receive(SILENCE_MS)
            except pulsar.Timeout:
                break
            keys.append(message.partition_key())
        counts.append(len(keys))
    equal(sum(counts), 20)
    return f"{counts[0]} and {counts[1]}"


@check("key shared refuses overlapping ranges")
def _(s):
    s.consumer(consumer_type=TYPES["key shared"], key_shared_policy=sticky([(0, 99)]))
    return refused(lambda: s.consumer(consumer_type=TYPES["key shared"], key_shared_policy=sticky([(50, 150)])))


@check("a subscription keeps its position")
def _(s):
    consumer = s.consumer()
    s.send(3)
    equal(take(consumer, 1), ["0"])
    consumer.close()
    equal(take(s.consumer(), 2), ["1", "2"])


@check("a subscription begins at the latest")
def _(s):
    s.send(1)
    consumer = s.consumer(initial_position=pulsar.InitialPosition.Latest)
    nothing(consumer)
    s.send(1)
    equal(take(consumer, 1), ["0"])


@check("unsubscribe forgets the position")
def _(s):
    consumer = s.consumer()
    s.send(2)
    take(consumer, 2)
    consumer.unsubscribe()
    equal(take(s.consumer(), 2), ["0", "1"])


@check("unsubscribe beside another consumer is refused")
def _(s):
    first = s.consumer(consumer_type=TYPES["shared"])
    s.consumer(consumer_type=TYPES["shared"])
    return refused(first.unsubscribe)


@check("two subscriptions each get all")
def _(s):
    consumers = [s.consumer("a"), s.consumer("b")]
    s.send(3)
    for consumer in consumers:
        equal(take(consumer, 3), ["0", "1", "2"])


@check("several topics")
def _(s):
    topics = [s.topic + suffix for suffix in ("-a", "-b")]
    consumer = s.client.subscribe(topics, "s", initial_position=EARLIEST)
    for topic in topics:
        s.producer(topic).send(topic[-1].encode())
    equal(sorted(take(consumer, 2)), ["a", "b"])


@check("a pattern of topics")
def _(s):
    for suffix in ("-a", "-b"):
        s.producer(s.topic + suffix).send(suffix[-1].encode())
    consumer = s.client.subscribe(re.compile(s.topic + "-.*"), "s", initial_position=EARLIEST)
    equal(sorted(take(consumer, 2)), ["a", "b"])


@check("batch receive")
def _(s):
    policy = pulsar.ConsumerBatchReceivePolicy(3, 0, WAIT_MS)
    consumer = s.consumer(batch_receive_policy=policy)
    s.send(3)
    equal([message.data() for message in consumer.batch_receive()], [b"0", b"1", b"2"])


@check("a queue of none")
def _(s):
    consumer = s.consumer(receiver_queue_size=0)
    s.send(3)
    payloads = []
    for _ in range(3):
        message = consumer.receive()
        payloads.append(message.data())
        consumer.acknowledge(message)
    equal(payloads, [b"0", b"1", b"2"])


@check("a listener")
def _(s):
    seen = []
    consumer = s.consumer(message_listener=lambda it, message: (seen.append(message.data()), it.acknowledge(message)))
    s.send(3)
    until(lambda: len(seen) == 3, f"{seen}")
    equal(seen, [b"0", b"1", b"2"])
    consumer.close()


@check("cumulative acknowledgment")
def _(s):
    consumer = s.consumer()
    s.send(3)
    messages = [consumer.receive(WAIT_MS) for _ in range(3)]
    consumer.acknowledge_cumulative(messages[1])
    consumer.close()
    equal(take(s.consumer(), 1), ["2"])


@check("acknowledgment within a batch")
def _(s):
    consumer = s.consumer(consumer_type=TYPES["shared"], batch_index_ack_enabled=True)
    s.send_batch(4)
    messages = [consumer.receive(WAIT_MS) for _ in range(4)]
    consumer.acknowledge(messages[0])
    consumer.acknowledge(messages[2])
    consumer.close()
    consumer = s.consumer(consumer_type=TYPES["shared"], batch_index_ack_enabled=True)
    equal(sorted(take(consumer, 2)), ["1", "3"])
    nothing(consumer)


@check("a negative acknowledgment redelivers")
def _(s):
    consumer = s.consumer(consumer_type=TYPES["shared"], negative_ack_redelivery_delay_ms=100)
    s.send(1)
    counts = []
    for _ in range(3):
        message = consumer.receive(WAIT_MS)
        counts.append(message.redelivery_count())
        consumer.negative_acknowledge(message)
    equal(counts, [0, 1, 2])


@check("redeliver what is not acknowledged")
def _(s):
    consumer = s.consumer(consumer_type=TYPES["shared"])
    s.send(3)
    for _ in range(3):
        consumer.receive(WAIT_MS)
    consumer.redeliver_unacknowledged_messages()
    equal(sorted(take(consumer, 3)), ["0", "1", "2"])


@check("closing gives back what is not acknowledged")
def _(s):
    first = s.consumer(consumer_type=TYPES["shared"])
    s.send(3)
    for _ in range(3):
        first.receive(WAIT_MS)
    second = s.consumer(consumer_type=TYPES["shared"])
    first.close()
    equal(sorted(take(second, 3)), ["0", "1", "2"])


@check("dead letter")
def _(s):
    dead = s.topic + "-dead"
    letters = s.consumer("letters", topic=dead)
    policy = pulsar.ConsumerDeadLetterPolicy(2, dead, "kept")
    consumer = s.consumer(
        consumer_type=TYPES["shared"], negative_ack_redelivery_delay_ms=100, dead_letter_policy=policy
    )
    s.send(1)
    for _ in range(3):
        consumer.negative_acknowledge(consumer.receive(WAIT_MS))
    equal(take(letters, 1), ["0"])
    nothing(consumer)
