"""The official Python client, which is the C++ client, behind the line protocol of ../README.md."""

import json
import os
import sys
from importlib.metadata import version

import pulsar

CODECS = {
    "NONE": pulsar.CompressionType.NONE,
    "LZ4": pulsar.CompressionType.LZ4,
    "ZLIB": pulsar.CompressionType.ZLib,
    "ZSTD": pulsar.CompressionType.ZSTD,
    "SNAPPY": pulsar.CompressionType.SNAPPY,
}


def id_of(message_id):
    index = message_id.batch_index()
    return f"{message_id.ledger_id()}:{message_id.entry_id()}:{message_id.partition()}:{index}"


def connect(token):
    logger = pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
    return pulsar.Client(os.environ["PULSAR_URL"], authentication=pulsar.AuthenticationToken(token), logger=logger)


def info(_client, _request):
    return {
        "client": "Python (C++)",
        "version": version("pulsar-client"),
        "lacks": ["null", "key_bytes", "java_hash", "murmur3", "give_up", "send_keys", "read_pattern", "replicate_to"],
    }


def key_reader(keys):
    return pulsar.CryptoKeyReader(keys["public"], keys["private"])


def produce(client, request):
    keys = request["keys"]
    producer = client.create_producer(
        request["topic"],
        batching_enabled=request["batching"],
        batching_max_publish_delay_ms=20,
        batching_type=pulsar.BatchingType.KeyBased if request["by_key"] else pulsar.BatchingType.Default,
        chunking_enabled=request["chunking"],
        compression_type=CODECS[request["compression"]],
        message_routing_mode=pulsar.PartitionsRoutingMode.RoundRobinDistribution,
        block_if_queue_full=True,
        **({"encryption_key": keys["name"], "crypto_key_reader": key_reader(keys)} if keys else {}),
    )
    ids = [None] * len(request["messages"])
    failures = []

    def stored(at):
        def callback(result, message_id):
            if result == pulsar.Result.Ok:
                ids[at] = id_of(message_id)
            else:
                failures.append(str(result))

        return callback

    for at, message in enumerate(request["messages"]):
        arguments = {"properties": message.get("properties", {})}
        if "key" in message:
            arguments["partition_key"] = message["key"]
        if "ordering_key" in message:
            arguments["ordering_key"] = bytes.fromhex(message["ordering_key"]).decode()
        if "event_time" in message:
            arguments["event_timestamp"] = message["event_time"]
        producer.send_async(bytes.fromhex(message["payload"]), stored(at), **arguments)
    producer.flush()
    producer.close()
    if failures:
        raise RuntimeError(failures[0])
    return {"ids": ids}


def consume(client, request):
    keys = request["keys"]
    consumer = client.subscribe(
        request["topic"],
        request["subscription"],
        initial_position=pulsar.InitialPosition.Earliest,
        **({"crypto_key_reader": key_reader(keys)} if keys else {}),
    )
    messages = []
    for _ in range(request["count"]):
        message = consumer.receive(timeout_millis=30_000)
        received = {
            "payload": message.data().hex(),
            "properties": message.properties(),
            "id": id_of(message.message_id()),
        }
        if message.partition_key():
            received["key"] = message.partition_key()
        if message.ordering_key():
            received["ordering_key"] = message.ordering_key().encode().hex()
        if message.event_timestamp():
            received["event_time"] = message.event_timestamp()
        messages.append(received)
        consumer.acknowledge(message)
    consumer.close()
    return {"messages": messages}


def echo(_client, request):
    tokens = 0

    def token():
        nonlocal tokens
        tokens += 1
        with open(request["token_file"]) as file:
            return file.read()

    client = connect(token)
    producer = client.create_producer(request["to"])
    consumer = client.subscribe(request["from"], "theirs", initial_position=pulsar.InitialPosition.Earliest)
    data = b""
    while data != b"end":
        message = consumer.receive(timeout_millis=30_000)
        data = message.data()
        producer.send(data)
        consumer.acknowledge(message)
    client.close()
    return {"tokens": tokens}


def read_ids(client, request):
    reader = client.create_reader(request["topic"], pulsar.MessageId.earliest)
    messages = []
    for _ in range(request["count"]):
        message = reader.read_next(timeout_millis=30_000)
        payload = message.data()[: request["bytes"]].decode()
        messages.append({"payload": payload, "id_bytes": message.message_id().serialize().hex()})
    reader.close()
    return {"messages": messages}


def read_behind(client, request):
    found = []
    for place in request["places"]:
        message_id = pulsar.MessageId.deserialize(bytes.fromhex(place["id_bytes"]))
        reader = client.create_reader(place["topic"], message_id)
        payloads = [reader.read_next(timeout_millis=30_000).data()]
        reader.close()
        consumer = client.subscribe(place["topic"], "behind")
        consumer.seek(message_id)
        payloads.append(consumer.receive(timeout_millis=30_000).data())
        consumer.close()
        payloads = [payload[: request["bytes"]].decode() for payload in payloads]
        found.append({"payloads": payloads, "id_bytes": message_id.serialize().hex()})
    return {"found": found}


def read_table(client, request):
    view = client.create_table_view(request["topic"])
    entries = {}
    view.for_each(lambda key, value: entries.__setitem__(key, value.hex()))
    view.close()
    return {"entries": entries}


def main():
    client = connect(os.environ["PULSAR_TOKEN"])
    calls = {
        "info": info,
        "produce": produce,
        "consume": consume,
        "echo": echo,
        "read_ids": read_ids,
        "read_behind": read_behind,
        "read_table": read_table,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = calls[request["do"]](client, request)
        except Exception as error:  # every failure is an answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    client.close()


main()
