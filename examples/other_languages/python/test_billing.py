import pulsar

from billing import bill


def test_each_order_has_an_invoice(client):
    producer = client.create_producer("orders")
    producer.send(b"tea", partition_key="ann")
    producer.send(b"milk", partition_key="bob")

    bill(client, orders=2)

    invoices = client.create_reader("invoices", pulsar.MessageId.earliest)
    received = [invoices.read_next(timeout_millis=10_000) for _ in range(2)]
    assert [(invoice.partition_key(), invoice.data()) for invoice in received] == [
        ("ann", b"invoice for tea"),
        ("bob", b"invoice for milk"),
    ]
    assert not invoices.has_message_available()
