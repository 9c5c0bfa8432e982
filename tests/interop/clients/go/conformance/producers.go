package main

import (
	"strings"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

func mode(of pulsar.ProducerAccessMode) func(*pulsar.ProducerOptions) {
	return func(options *pulsar.ProducerOptions) { options.ProducerAccessMode = of }
}

func named(options *pulsar.ProducerOptions) { options.Name = "someone" }

func (s *session) deduplicated() {
	s.topic = strings.Replace(s.topic, "public/default", "public/dedup", 1)
}

func numbered(sequenceID int64, payload string) pulsar.ProducerMessage {
	return pulsar.ProducerMessage{SequenceID: &sequenceID, Payload: []byte(payload)}
}

func init() {
	add("a producer's name", func(s *session) { equal(s.producer(named).Name(), "someone") })
	addSeen("a name is taken", func(s *session) string {
		s.producer(named)
		_, err := s.tryProducer(named)
		return refused(err)
	})
	add("sequence ids count from 0", func(s *session) {
		producer := s.producer(nil)
		equal(producer.LastSequenceID(), -1)
		put(producer, "x")
		put(producer, "x")
		equal(producer.LastSequenceID(), 1)
	})
	addSeen("an exclusive producer is alone", func(s *session) string {
		s.producer(mode(pulsar.ProducerAccessModeExclusive))
		_, err := s.tryProducer(nil)
		return refused(err)
	})
	addSeen("exclusive beside others is refused", func(s *session) string {
		s.producer(nil)
		_, err := s.tryProducer(mode(pulsar.ProducerAccessModeExclusive))
		return refused(err)
	})
	add("an exclusive producer is waited for", func(s *session) {
		first := s.producer(mode(pulsar.ProducerAccessModeExclusive))
		sent := make(chan error, 1)
		go func() {
			producer, err := s.tryProducer(mode(pulsar.ProducerAccessModeWaitForExclusive))
			if err == nil {
				_, err = trySend(producer, pulsar.ProducerMessage{Payload: []byte("x")})
			}
			sent <- err
		}()
		select {
		case <-sent:
			fail("it did not wait")
		case <-time.After(silence):
		}
		first.Close()
		select {
		case err := <-sent:
			must(err)
		case <-time.After(wait):
			fail("it waits for ever")
		}
	})
	add("deduplication drops a repeated sequence id", func(s *session) {
		s.deduplicated()
		consumer := s.consumer(nil)
		producer := s.producer(named)
		for _, at := range []string{"1", "2", "2", "1", "3"} {
			got(trySend(producer, numbered(int64(at[0]-'0'), at)))
		}
		equal(take(consumer, 3), []string{"1", "2", "3"})
		nothing(consumer)
	})
	add("deduplication outlives a producer", func(s *session) {
		s.deduplicated()
		consumer := s.consumer(nil)
		for _, at := range []string{"7", "7", "8"} {
			producer := s.producer(named)
			got(trySend(producer, numbered(int64(at[0]-'0'), at)))
			producer.Close()
		}
		equal(take(consumer, 2), []string{"7", "8"})
		nothing(consumer)
	})
	// By which error depends on whether the client has closed the producer by then.
	add("a terminated topic takes no more", func(s *session) {
		producer := s.producer(nil)
		put(producer, "x")
		status, _ := admin("POST", adminPath(s.topic)+"/terminate", "")
		equal(status, 200)
		_, err := trySend(producer, pulsar.ProducerMessage{Payload: []byte("y")})
		refused(err)
	})
	add("a producer goes on after an unload", func(s *session) {
		consumer := s.consumer(nil)
		producer := s.producer(nil)
		put(producer, "0")
		status, _ := admin("PUT", adminPath(s.topic)+"/unload", "")
		equal(status/100, 2)
		put(producer, "1")
		// What was not acknowledged before the unload may come twice.
		for take(consumer, 1)[0] != "1" {
		}
	})
	add("a key has one partition", func(s *session) {
		partitioned(s)
		producer := s.producer(nil)
		seen := map[int32]bool{}
		for range 9 {
			id := got(trySend(producer, pulsar.ProducerMessage{Key: "k", Payload: []byte("x")}))
			seen[id.PartitionIdx()] = true
		}
		equal(len(seen), 1)
	})
	add("partitions are listed", func(s *session) {
		partitioned(s)
		expected := []string{s.topic + "-partition-0", s.topic + "-partition-1", s.topic + "-partition-2"}
		equal(got(s.client.TopicPartitions(s.topic)), expected)
	})
	add("partitions are all used", func(s *session) {
		partitioned(s)
		consumer := s.consumer(nil)
		producer := s.producer(func(options *pulsar.ProducerOptions) {
			next := 0
			options.MessageRouter = func(_ *pulsar.ProducerMessage, topic pulsar.TopicMetadata) int {
				next++
				return next % int(topic.NumPartitions())
			}
		})
		seen := map[int32]bool{}
		for _, payload := range numbers(30) {
			seen[put(producer, payload).PartitionIdx()] = true
		}
		equal(len(seen), 3)
		equal(sorted(take(consumer, 30)), numbers(30))
	})
	add("one partition is a topic", func(s *session) {
		partitioned(s)
		s.topic += "-partition-1"
		consumer := s.consumer(nil)
		put(s.producer(nil), "x")
		equal(take(consumer, 1), []string{"x"})
	})
	add("partitions that exist are not made again", func(s *session) {
		partitioned(s)
		status, _ := admin("PUT", adminPath(s.topic)+"/partitions", "3")
		equal(status, 409)
	})
}

func partitioned(s *session) {
	status, _ := admin("PUT", adminPath(s.topic)+"/partitions", "3")
	equal(status, 204)
}
