package billing

import (
	"context"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

func TestEachOrderHasAnInvoice(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: broker.BrokerServiceURL})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []pulsar.ProducerMessage{
		{Key: "ann", Payload: []byte("tea")},
		{Key: "bob", Payload: []byte("milk")},
	} {
		if _, err := producer.Send(ctx, &order); err != nil {
			t.Fatal(err)
		}
	}

	if err := Bill(ctx, client, 2); err != nil {
		t.Fatal(err)
	}

	invoices, err := client.CreateReader(pulsar.ReaderOptions{
		Topic:          "invoices",
		StartMessageID: pulsar.EarliestMessageID(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, expected := range []string{"ann: invoice for tea", "bob: invoice for milk"} {
		invoice, err := invoices.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := invoice.Key() + ": " + string(invoice.Payload()); got != expected {
			t.Errorf("%q, expected %q", got, expected)
		}
	}
	if invoices.HasNext() {
		t.Error("there are more invoices")
	}
}
