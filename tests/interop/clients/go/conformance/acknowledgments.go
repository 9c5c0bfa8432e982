package main

import (
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

func receiveSome(consumer pulsar.Consumer, count int) []pulsar.Message {
	var messages []pulsar.Message
	for range count {
		messages = append(messages, receive(consumer))
	}
	return messages
}

func init() {
	add("cumulative acknowledgment", func(s *session) {
		consumer := s.consumer(nil)
		s.send(3)
		must(consumer.AckCumulative(receiveSome(consumer, 3)[1]))
		consumer.Close()
		equal(take(s.consumer(nil), 1), []string{"2"})
	})
	add("acknowledgment within a batch", func(s *session) {
		byIndex := func(options *pulsar.ConsumerOptions) {
			options.Type = pulsar.Shared
			options.EnableBatchIndexAcknowledgment = true
		}
		consumer := s.consumer(byIndex)
		s.sendBatch(4)
		messages := receiveSome(consumer, 4)
		must(consumer.Ack(messages[0]))
		must(consumer.Ack(messages[2]))
		consumer.Close()
		consumer = s.consumer(byIndex)
		equal(sorted(take(consumer, 2)), []string{"1", "3"})
		nothing(consumer)
	})
	add("an acknowledgment with a response", func(s *session) {
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) { options.AckWithResponse = true })
		s.send(3)
		take(consumer, 3)
	})
	add("a list of acknowledgments", func(s *session) {
		consumer := s.consumer(nil)
		s.send(3)
		var ids []pulsar.MessageID
		for _, message := range receiveSome(consumer, 3) {
			ids = append(ids, message.ID())
		}
		must(consumer.AckIDList(ids[:2]))
		consumer.Close()
		equal(take(s.consumer(nil), 1), []string{"2"})
	})
	add("a negative acknowledgment redelivers", func(s *session) {
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) {
			options.Type = pulsar.Shared
			options.NackRedeliveryDelay = 100 * time.Millisecond
		})
		s.send(1)
		for count := range uint32(3) {
			message := receive(consumer)
			equal(message.RedeliveryCount(), count)
			consumer.Nack(message)
		}
	})
	add("closing gives back what is not acknowledged", func(s *session) {
		first := s.consumerOf(pulsar.Shared)
		s.send(3)
		receiveSome(first, 3)
		second := s.consumerOf(pulsar.Shared)
		first.Close()
		equal(sorted(take(second, 3)), numbers(3))
	})
	add("dead letter", func(s *session) {
		dead := s.topic + "-dead"
		letters := s.consumer(func(options *pulsar.ConsumerOptions) { options.Topic = dead })
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) {
			options.Type = pulsar.Shared
			options.NackRedeliveryDelay = 100 * time.Millisecond
			options.DLQ = &pulsar.DLQPolicy{MaxDeliveries: 2, DeadLetterTopic: dead}
		})
		s.send(1)
		for range 2 {
			consumer.Nack(receive(consumer))
		}
		equal(take(letters, 1), []string{"0"})
		nothing(consumer)
	})
	add("retry letter", func(s *session) {
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) {
			options.Type = pulsar.Shared
			options.RetryEnable = true
			options.DLQ = &pulsar.DLQPolicy{MaxDeliveries: 5}
		})
		s.send(1)
		consumer.ReconsumeLater(receive(consumer), 300*time.Millisecond)
		message := receive(consumer)
		equal(string(message.Payload()), "0")
		equal(message.Properties()["RECONSUMETIMES"], "1")
	})
}
