// Package billing is the application: it sends an invoice for each order.
package billing

import (
	"context"

	"github.com/apache/pulsar-client-go/pulsar"
)

// Bill bills so many orders.
func Bill(ctx context.Context, client pulsar.Client, orders int) error {
	consumer, err := client.Subscribe(pulsar.ConsumerOptions{
		Topic:                       "orders",
		SubscriptionName:            "billing",
		SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
	})
	if err != nil {
		return err
	}
	defer consumer.Close()
	producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: "invoices"})
	if err != nil {
		return err
	}
	defer producer.Close()
	for range orders {
		order, err := consumer.Receive(ctx)
		if err != nil {
			return err
		}
		invoice := pulsar.ProducerMessage{Key: order.Key(), Payload: append([]byte("invoice for "), order.Payload()...)}
		if _, err := producer.Send(ctx, &invoice); err != nil {
			return err
		}
		if err := consumer.Ack(order); err != nil {
			return err
		}
	}
	return nil
}
