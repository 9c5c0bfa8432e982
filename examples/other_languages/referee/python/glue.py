"""The official Python client, which is the C++ client, behind the line protocol of `pulsar-native referee`."""

import logging
import os
import sys
from importlib.metadata import version

import pulsar

TYPES = {"exclusive": pulsar.ConsumerType.Exclusive, "shared": pulsar.ConsumerType.Shared}
TYPES |= {"failover": pulsar.ConsumerType.Failover, "key_shared": pulsar.ConsumerType.KeyShared}
OPTIONS = {
    "connection_timeout_ms": lambda value: {"connection_timeout_ms": int(value)},
    "token_file": lambda path: {"authentication": pulsar.AuthenticationToken(lambda: open(path).read())},
    "batching": lambda value: {"batching_enabled": value == "true"},
    "send_timeout_ms": lambda value: {"send_timeout_millis": int(value)},
    "producer_name": lambda value: {"producer_name": value},
    "access_mode": lambda value: {"access_mode": pulsar.ProducerAccessMode.__members__[value.capitalize()]},
    "nack_delay_ms": lambda value: {"negative_ack_redelivery_delay_ms": int(value)},
    "ack_timeout_ms": lambda value: {"unacked_messages_timeout_ms": int(value)},
    "batch_index_ack": lambda value: {"batch_index_ack_enabled": value == "true"},
}
CALLS = {"ack": "acknowledge", "ack_cumulative": "acknowledge_cumulative", "nack": "negative_acknowledge", "close": "close"}
named = {}  # the client, producers, consumers and messages


def options(words):
    return {name: value for word in words for name, value in OPTIONS[word.split("=")[0]](word.split("=")[1]).items()}


def say(line):
    sys.stdout.write(line.replace("\n", " ") + "\n")  # at once, since callbacks write, too
    sys.stdout.flush()


def send(producer, number, *payload):
    def sent(result, id):
        is_stored = result == pulsar.Result.Ok
        say(f"sent {number} ok {id.ledger_id()}:{id.entry_id()}" if is_stored else f"sent {number} error {result}")

    producer.send_async(" ".join(payload).encode(), sent)


def answer(request, *words):
    if request == "connect":
        url, timeout, *rest = words
        fixed = {"operation_timeout_seconds": int(timeout) // 1000, "logger": logging.getLogger("pulsar")}
        named["client"] = pulsar.Client(url, **fixed, **options(rest))
    elif request == "producer":
        name, topic, *rest = words
        named[name] = named["client"].create_producer(topic, **options(rest))
    elif request == "subscribe":
        name, topic, subscription, kind, queue, *rest = words
        fixed = {"initial_position": pulsar.InitialPosition.Earliest, "receiver_queue_size": int(queue)}
        named[name] = named["client"].subscribe(topic, subscription, TYPES[kind], **fixed, **options(rest))
    elif request == "send":
        send(named[words[0]], *words[1:])
    elif request == "receive":
        try:
            message = named[words[1]] = named[words[0]].receive(int(words[2]))
            return f"ok {message.redelivery_count()} {message.data()[:1000].decode(errors='replace')}"
        except pulsar.Timeout:
            return "none"
    elif request in CALLS:
        getattr(named[words[0]], CALLS[request])(*(named[word] for word in words[1:]))
    elif request == "exit":
        named["client"].close() if "client" in named else None
    else:
        return f"unsupported {request}"
    return "ok"


logging.basicConfig(stream=sys.stderr, level=logging.INFO)
say(f"ready pulsar-client-python {version('pulsar-client')}")
for line in sys.stdin:
    try:
        say(answer(*line.rstrip("\n").split(" ")))
    except KeyError as missing:
        say(f"unsupported {missing}")
    except Exception as error:
        say(f"error {type(error).__name__} {error}")
    if line == "exit\n":
        os._exit(0)  # without destructors: threads of the C++ client may still run, and would then abort the process
