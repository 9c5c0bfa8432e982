"""Seeking, readers, table views."""

import time

import pulsar
from session import WAIT_MS, check, equal, nothing, read_all, take, until


@check("seek to the earliest")
def _(s):
    consumer = s.consumer()
    s.send(3)
    take(consumer, 3)
    consumer.seek(pulsar.MessageId.earliest)
    equal(take(consumer, 3), ["0", "1", "2"])


@check("seek to the latest")
def _(s):
    consumer = s.consumer()
    s.send(3)
    consumer.seek(pulsar.MessageId.latest)
    nothing(consumer)


@check("seek to an id")
def _(s):
    consumer = s.consumer()
    ids = s.send(3)
    take(consumer, 3)
    consumer.seek(ids[0])
    equal(take(consumer, 2), ["1", "2"])


@check("seek to an id, inclusive")
def _(s):
    consumer = s.consumer(start_message_id_inclusive=True)
    ids = s.send(3)
    take(consumer, 3)
    consumer.seek(ids[1])
    equal(take(consumer, 2), ["1", "2"])


@check("seek to a time")
def _(s):
    consumer = s.consumer()
    s.send(1)
    time.sleep(0.3)
    between = int(time.time() * 1000)
    time.sleep(0.3)
    s.send(2)
    take(consumer, 3)
    consumer.seek(between)
    equal(take(consumer, 2), ["0", "1"])


@check("the last id")
def _(s):
    consumer = s.consumer()
    ids = s.send(3)
    last = consumer.get_last_message_id()
    equal((last.ledger_id(), last.entry_id()), (ids[2].ledger_id(), ids[2].entry_id()))


@check("the last id of an empty topic")
def _(s):
    last = s.consumer().get_last_message_id()
    return f"{last.entry_id()}"


@check("an id in bytes")
def _(s):
    ids = s.send(2)
    again = pulsar.MessageId.deserialize(ids[0].serialize())
    equal(s.reader(again).read_next(WAIT_MS).data(), b"1")


@check("reader from the earliest")
def _(s):
    s.send(3)
    equal(read_all(s.reader()), ["0", "1", "2"])


@check("reader from the latest")
def _(s):
    s.send(2)
    reader = s.reader(pulsar.MessageId.latest)
    equal(read_all(reader), [])
    s.send(1)
    equal(read_all(reader), ["0"])


@check("reader behind an id")
def _(s):
    equal(read_all(s.reader(s.send(3)[1])), ["2"])


@check("reader at an id")
def _(s):
    equal(read_all(s.reader(s.send(3)[1], start_message_id_inclusive=True)), ["1", "2"])


@check("reader of batches")
def _(s):
    s.send_batch(3)
    equal(read_all(s.reader()), ["0", "1", "2"])


@check("reader of an empty topic")
def _(s):
    equal(read_all(s.reader()), [])


@check("reader seeks an id")
def _(s):
    ids = s.send(3)
    reader = s.reader()
    equal(read_all(reader), ["0", "1", "2"])
    reader.seek(ids[0])
    equal(read_all(reader), ["1", "2"])


@check("reader seeks a time")
def _(s):
    s.send(1)
    reader = s.reader()
    equal(read_all(reader), ["0"])
    reader.seek(int(time.time() * 1000) - 60_000)
    equal(read_all(reader), ["0"])


@check("table view")
def _(s):
    producer = s.producer()
    for key, value in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        producer.send(value, partition_key=key)
    view = s.client.create_table_view(s.topic)
    equal((view.get("a"), view.get("b"), view.get("c")), (b"3", b"2", None))
    producer.send(b"4", partition_key="c")
    until(lambda: view.get("c") == b"4", "no c")
