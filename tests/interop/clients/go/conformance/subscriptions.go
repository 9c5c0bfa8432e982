package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

var types = []struct {
	name string
	kind pulsar.SubscriptionType
}{
	{"exclusive", pulsar.Exclusive},
	{"failover", pulsar.Failover},
	{"shared", pulsar.Shared},
	{"key shared", pulsar.KeyShared},
}

func numbers(count int) []string {
	all := []string{}
	for at := range count {
		all = append(all, fmt.Sprint(at))
	}
	return all
}

func sorted(payloads []string) []string {
	slices.SortFunc(payloads, func(left, right string) int {
		l, lerr := strconv.Atoi(left)
		r, rerr := strconv.Atoi(right)
		if lerr == nil && rerr == nil {
			return l - r
		}
		if left < right {
			return -1
		}
		return 1
	})
	return payloads
}

func sticky(ranges ...int) func(*pulsar.ConsumerOptions) {
	return func(options *pulsar.ConsumerOptions) {
		options.Type = pulsar.KeyShared
		options.KeySharedPolicy = got(pulsar.NewKeySharedPolicySticky(ranges))
	}
}

// The keys that come until nothing comes, acknowledged.
func drain(consumer pulsar.Consumer) []string {
	keys := []string{}
	for {
		message, err := tryReceive(consumer, silence)
		if err != nil {
			return keys
		}
		must(consumer.Ack(message))
		keys = append(keys, message.Key())
	}
}

func sendKeys(s *session, count, distinct int) {
	producer := s.producer(nil)
	for at := range count {
		key := fmt.Sprintf("key-%d", at%distinct)
		got(trySend(producer, pulsar.ProducerMessage{Key: key, Payload: []byte("x")}))
	}
}

func init() {
	for _, of := range types {
		add("receive "+of.name, func(s *session) {
			consumer := s.consumerOf(of.kind)
			s.send(20)
			equal(sorted(take(consumer, 20)), numbers(20))
			nothing(consumer)
		})
		add("batch "+of.name, func(s *session) {
			consumer := s.consumerOf(of.kind)
			s.sendBatch(20)
			equal(take(consumer, 20), numbers(20))
			nothing(consumer)
		})
	}
	addSeen("exclusive refuses a second consumer", func(s *session) string {
		s.consumer(nil)
		_, err := s.tryConsumer(nil)
		return refused(err)
	})
	addSeen("types of a subscription do not mix", func(s *session) string {
		s.consumerOf(pulsar.Shared)
		_, err := s.tryConsumer(func(options *pulsar.ConsumerOptions) { options.Type = pulsar.Failover })
		return refused(err)
	})
	add("failover goes on at the next consumer", func(s *session) {
		active, standby := s.consumerOf(pulsar.Failover), s.consumerOf(pulsar.Failover)
		s.send(2)
		message, err := tryReceive(active, 3*time.Second)
		if err != nil {
			active, standby = standby, active
			message = receive(active)
		}
		must(active.Ack(message))
		active.Close()
		equal(take(standby, 1), []string{"1"})
	})
	add("shared spreads over consumers", func(s *session) {
		few := func(options *pulsar.ConsumerOptions) {
			options.Type = pulsar.Shared
			options.ReceiverQueueSize = 5
		}
		first, second := s.consumer(few), s.consumer(few)
		s.send(10)
		take(first, 1)
		take(second, 1)
	})
	add("key shared keeps a key at one consumer", func(s *session) {
		first, second := s.consumerOf(pulsar.KeyShared), s.consumerOf(pulsar.KeyShared)
		sendKeys(s, 40, 10)
		left, right := drain(first), drain(second)
		equal(len(left)+len(right), 40)
		for _, key := range left {
			equal(slices.Contains(right, key), false)
		}
	})
	addSeen("key shared by ranges", func(s *session) string {
		low, high := s.consumer(sticky(0, 32767)), s.consumer(sticky(32768, 65535))
		sendKeys(s, 20, 20)
		left, right := drain(low), drain(high)
		equal(len(left)+len(right), 20)
		return fmt.Sprintf("%d and %d", len(left), len(right))
	})
	addSeen("key shared refuses overlapping ranges", func(s *session) string {
		s.consumer(sticky(0, 99))
		_, err := s.tryConsumer(sticky(50, 150))
		return refused(err)
	})
	add("a subscription keeps its position", func(s *session) {
		consumer := s.consumer(nil)
		s.send(3)
		equal(take(consumer, 1), []string{"0"})
		consumer.Close()
		equal(take(s.consumer(nil), 2), []string{"1", "2"})
	})
	add("a subscription begins at the latest", func(s *session) {
		s.send(1)
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) {
			options.SubscriptionInitialPosition = pulsar.SubscriptionPositionLatest
		})
		nothing(consumer)
		s.send(1)
		equal(take(consumer, 1), []string{"0"})
	})
	add("unsubscribe forgets the position", func(s *session) {
		consumer := s.consumer(nil)
		s.send(2)
		take(consumer, 2)
		must(consumer.Unsubscribe())
		equal(take(s.consumer(nil), 2), []string{"0", "1"})
	})
	addSeen("unsubscribe beside another consumer is refused", func(s *session) string {
		first := s.consumerOf(pulsar.Shared)
		s.consumerOf(pulsar.Shared)
		return refused(first.Unsubscribe())
	})
	add("two subscriptions each get all", func(s *session) {
		other := s.consumer(func(options *pulsar.ConsumerOptions) { options.SubscriptionName = "other" })
		consumer := s.consumer(nil)
		s.send(3)
		equal(take(consumer, 3), numbers(3))
		equal(take(other, 3), numbers(3))
	})
	add("several topics", func(s *session) {
		topics := []string{s.topic + "-a", s.topic + "-b"}
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) { options.Topics = topics })
		for _, topic := range topics {
			put(s.producer(func(options *pulsar.ProducerOptions) { options.Topic = topic }), topic[len(topic)-1:])
		}
		equal(sorted(take(consumer, 2)), []string{"a", "b"})
	})
	add("a pattern of topics", func(s *session) {
		for _, name := range []string{"a", "b"} {
			put(s.producer(func(options *pulsar.ProducerOptions) { options.Topic = s.topic + "-" + name }), name)
		}
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) { options.TopicsPattern = s.topic + "-.*" })
		equal(sorted(take(consumer, 2)), []string{"a", "b"})
	})
	add("a queue of none", func(s *session) {
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) { options.EnableZeroQueueConsumer = true })
		s.send(3)
		equal(take(consumer, 3), numbers(3))
	})
	add("a channel of messages", func(s *session) {
		consumer := s.consumer(nil)
		s.send(3)
		for _, expected := range numbers(3) {
			select {
			case message := <-consumer.Chan():
				equal(string(message.Payload()), expected)
			case <-time.After(wait):
				fail("nothing came")
			}
		}
	})
}
