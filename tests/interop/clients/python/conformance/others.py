"""Schemas, rights, names, the admin API."""

import os

from pulsar import schema as schemas
from session import WAIT_MS, admin, check, connect, equal, path, read_all, refused, take


class Order(schemas.Record):
    item = schemas.String()
    count = schemas.Integer()


class Other(schemas.Record):
    item = schemas.Integer(required=True)


def typed(schema, value):
    def body(s):
        consumer = s.consumer(schema=schema)
        s.producer(schema=schema).send(value)
        equal(consumer.receive(WAIT_MS).value(), value)

    return body


check("schema string")(typed(schemas.StringSchema(), "t\u00e9a"))
check("schema bytes")(typed(schemas.BytesSchema(), b"\x00\xff"))
check("schema avro")(typed(schemas.AvroSchema(Order), Order(item="tea", count=2)))
check("schema json")(typed(schemas.JsonSchema(Order), Order(item="tea", count=2)))


@check("schema json is registered")
def _(s):
    s.producer(schema=schemas.JsonSchema(Order)).close()
    status, answer = admin("GET", f"schemas/{s.topic.split('://')[1]}/schema")
    return f"{status} {answer and answer['type']}"


@check("another schema is refused")
def _(s):
    s.producer(schema=schemas.JsonSchema(Order)).close()
    return refused(lambda: s.producer(schema=schemas.JsonSchema(Other)))


@check("another type of schema is refused")
def _(s):
    s.producer(schema=schemas.JsonSchema(Order)).close()
    return refused(lambda: s.producer(schema=schemas.StringSchema()))


@check("a consumer's other schema is refused")
def _(s):
    s.producer(schema=schemas.JsonSchema(Order)).close()
    return refused(lambda: s.consumer(schema=schemas.JsonSchema(Other)))


@check("bytes of a topic with a schema")
def _(s):
    consumer = s.consumer()
    s.producer(schema=schemas.StringSchema()).send("tea")
    equal(take(consumer, 1), ["tea"])


def refused_token(token):
    return lambda s: refused(lambda: connect(token()).create_producer(s.topic))


check("a wrong token is refused")(refused_token(lambda: os.environ["PULSAR_TOKEN"][:-8] + "AAAAAAAA"))
check("an expired token is refused")(refused_token(lambda: os.environ["PULSAR_EXPIRED_TOKEN"]))
check("a role without rights is refused")(refused_token(lambda: os.environ["PULSAR_NOBODY_TOKEN"]))


@check("a missing namespace is refused")
def _(s):
    return refused(lambda: s.producer("persistent://public/missing/topic"))


@check("a missing topic is refused")
def _(s):
    return refused(lambda: s.producer(s.topic.replace("public/default", "public/strict")))


@check("a missing topic is refused to consumers")
def _(s):
    return refused(lambda: s.consumer(topic=s.topic.replace("public/default", "public/strict")))


@check("a malformed name is refused")
def _(s):
    return refused(lambda: s.producer("persistent://public/default/a/b/c"))


@check("statistics show the backlog")
def _(s):
    consumer = s.consumer()
    s.send(3)
    consumer.receive(WAIT_MS)
    status, stats = admin("GET", f"{path(s.topic)}/stats")
    equal(status, 200)
    equal(stats["subscriptions"]["s"]["msgBacklog"], 3)


@check("a deleted topic is gone")
def _(s):
    s.send(1)
    status, _ = admin("DELETE", path(s.topic))
    equal(status, 204)
    equal(read_all(s.reader()), [])
