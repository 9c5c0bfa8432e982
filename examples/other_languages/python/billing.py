"""The application: sends an invoice for each order."""

import pulsar


def bill(client, orders):
    """Bills so many orders."""
    consumer = client.subscribe("orders", "billing", initial_position=pulsar.InitialPosition.Earliest)
    producer = client.create_producer("invoices")
    for _ in range(orders):
        order = consumer.receive(timeout_millis=10_000)
        producer.send(b"invoice for " + order.data(), partition_key=order.partition_key())
        consumer.acknowledge(order)
    producer.close()
    consumer.close()
