"""The official Python client, which is the C++ client, behind the line protocol of `pulsar-native referee`."""

import logging
import sys
from importlib.metadata import version

import pulsar

TYPES = {name.lower(): kind for name, kind in pulsar.ConsumerType.__members__.items()}
TYPES["key_shared"] = pulsar.ConsumerType.KeyShared
CLIENT = {
    "operation_timeout_ms": lambda value: {"operation_timeout_seconds": int(value) // 1000},
    "connection_timeout_ms": lambda value: {"connection_timeout_ms": int(value)},
    "token_file": lambda path: {"authentication": pulsar.AuthenticationToken(lambda: open(path).read())},
}
PRODUCER = {
    "batching": lambda value: {"batching_enabled": value == "true"},
    "send_timeout_ms": lambda value: {"send_timeout_millis": int(value)},
    "producer_name": lambda value: {"producer_name": value},
    "access_mode": lambda value: {"access_mode": pulsar.ProducerAccessMode.__members__[value.capitalize()]},
}
CONSUMER = {
    "position": lambda value: {"initial_position": pulsar.InitialPosition.__members__[value.capitalize()]},
    "queue": lambda value: {"receiver_queue_size": int(value)},
    "nack_delay_ms": lambda value: {"negative_ack_redelivery_delay_ms": int(value)},
    "ack_timeout_ms": lambda value: {"unacked_messages_timeout_ms": int(value)},
    "batch_index_ack": lambda value: {"batch_index_ack_enabled": value == "true"},
}


def say(line):
    sys.stdout.write(line.replace("\n", " ") + "\n")
    sys.stdout.flush()


def options(known, words):
    pairs = [word.split("=", 1) for word in words]
    return {name: value for option, text in pairs for name, value in known[option](text).items()}


def on_sent(number):
    def callback(result, message_id):
        stored = result == pulsar.Result.Ok
        say(f"sent {number} ok {message_id.ledger_id()}:{message_id.entry_id()}" if stored else f"sent {number} error {result}")

    return callback


def answer(state, command, *words):
    if command == "connect":
        state["client"] = pulsar.Client(words[0], logger=logging.getLogger("pulsar"), **options(CLIENT, words[1:]))
    elif command == "producer":
        state[words[0]] = state["client"].create_producer(words[1], **options(PRODUCER, words[2:]))
    elif command == "subscribe":
        name, topic, subscription, kind, *rest = words
        state[name] = state["client"].subscribe(topic, subscription, consumer_type=TYPES[kind], **options(CONSUMER, rest))
    elif command == "send":
        name, number, payload = words[0], words[1], " ".join(words[2:])
        data = b"x" * int(payload[6:]) if payload.startswith("bytes:") else payload.encode()
        state[name].send_async(data, on_sent(number))
    elif command == "receive":
        try:
            message = state[words[0]].receive(timeout_millis=int(words[1]))
        except pulsar.Timeout:
            return "none"
        state["messages"].append(message)
        data = message.data()
        text = data.decode(errors="replace") if len(data) <= 1000 else f"bytes:{len(data)}"
        return f"ok {len(state['messages']) - 1} {message.redelivery_count()} {text}"
    elif command in ("ack", "ack_cumulative", "nack"):
        calls = {"ack": "acknowledge", "ack_cumulative": "acknowledge_cumulative", "nack": "negative_acknowledge"}
        getattr(state[words[0]], calls[command])(state["messages"][int(words[1])])
    elif command == "close":
        state.pop(words[0]).close()
    elif command == "exit":
        state["client"].close() if "client" in state else None
    else:
        return f"unsupported {command}"
    return "ok"


logging.basicConfig(stream=sys.stderr, level=logging.INFO)
say(f"ready pulsar-client-python {version('pulsar-client')}")
state = {"messages": []}
for line in sys.stdin:
    try:
        say(answer(state, *line.rstrip("\n").split(" ")))
    except KeyError as missing:
        say(f"unsupported {missing}")
    except Exception as error:
        say(f"error {type(error).__name__} {error}")
    if line.strip() == "exit":
        break
