package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/crypto"
)

var codecs = []struct {
	name  string
	codec pulsar.CompressionType
}{
	{"none", pulsar.NoCompression},
	{"lz4", pulsar.LZ4},
	{"zlib", pulsar.ZLib},
	{"zstd", pulsar.ZSTD},
	{"snappy", pulsar.SNAPPY},
}

// More than a message may have by default, and bytes that no codec makes smaller.
const bigBytes = 6_000_000

func compressed(codec pulsar.CompressionType, batching bool) func(*session) {
	return func(s *session) {
		consumer := s.consumer(nil)
		producer := s.producer(func(options *pulsar.ProducerOptions) {
			options.CompressionType = codec
			options.DisableBatching = !batching
		})
		for at := range byte(3) {
			put(producer, string(bytes.Repeat([]byte{at}, 10_000)))
		}
		for at := range byte(3) {
			equal(bytes.Equal(receive(consumer).Payload(), bytes.Repeat([]byte{at}, 10_000)), true)
		}
	}
}

func roundTrip(s *session, message pulsar.ProducerMessage) pulsar.Message {
	consumer := s.consumer(nil)
	message.Payload = []byte("x")
	got(trySend(s.producer(nil), message))
	return receive(consumer)
}

func delayed(late pulsar.ProducerMessage) func(*session) {
	return func(s *session) {
		consumer := s.consumerOf(pulsar.Shared)
		started := time.Now()
		producer := s.producer(nil)
		late.Payload = []byte("late")
		if late.DeliverAfter == 0 {
			late.DeliverAt = started.Add(1500 * time.Millisecond)
		}
		got(trySend(producer, late))
		put(producer, "now")
		equal(take(consumer, 2), []string{"now", "late"})
		equal(time.Since(started) > 1300*time.Millisecond, true)
	}
}

func init() {
	for _, of := range codecs {
		add("codec "+of.name, compressed(of.codec, false))
		add("codec "+of.name+" in a batch", compressed(of.codec, true))
	}
	add("key", func(s *session) { equal(roundTrip(s, pulsar.ProducerMessage{Key: "k\u00e9y"}).Key(), "k\u00e9y") })
	add("ordering key", func(s *session) {
		equal(roundTrip(s, pulsar.ProducerMessage{OrderingKey: "order"}).OrderingKey(), "order")
	})
	add("properties", func(s *session) {
		properties := map[string]string{"a": "1", "b": "", "c": "\u00fc"}
		equal(roundTrip(s, pulsar.ProducerMessage{Properties: properties}).Properties(), properties)
	})
	add("event time", func(s *session) {
		moment := time.UnixMilli(1_600_000_000_123)
		equal(roundTrip(s, pulsar.ProducerMessage{EventTime: moment}).EventTime().UnixMilli(), moment.UnixMilli())
	})
	add("publish time", func(s *session) {
		equal(time.Since(roundTrip(s, pulsar.ProducerMessage{}).PublishTime()).Abs() < time.Minute, true)
	})
	add("delayed by a time span", delayed(pulsar.ProducerMessage{DeliverAfter: 1500 * time.Millisecond}))
	add("delayed to a moment", delayed(pulsar.ProducerMessage{}))
	add("a delay does not count on exclusive", func(s *session) {
		consumer := s.consumer(nil)
		late := pulsar.ProducerMessage{Payload: []byte("late"), DeliverAt: time.Now().Add(time.Minute)}
		got(trySend(s.producer(nil), late))
		equal(take(consumer, 1), []string{"late"})
	})
	add("a thousand in order", func(s *session) {
		consumer := s.consumer(nil)
		s.sendBatch(1000)
		equal(take(consumer, 1000), numbers(1000))
	})
	add("chunks", func(s *session) {
		consumer := s.consumer(nil)
		payload := make([]byte, bigBytes)
		for at := range payload {
			payload[at] = byte(rand.Uint32())
		}
		producer := s.producer(func(options *pulsar.ProducerOptions) { options.EnableChunking = true })
		put(producer, string(payload))
		equal(bytes.Equal(receive(consumer).Payload(), payload), true)
	})
	addSeen("too big", func(s *session) string {
		_, err := trySend(s.producer(nil), pulsar.ProducerMessage{Payload: make([]byte, bigBytes)})
		return refused(err)
	})
	add("encryption", func(s *session) {
		keys := os.Getenv("CONFORMANCE_KEYS")
		reader := crypto.NewFileKeyReader(keys+"/first.public.pem", keys+"/first.pkcs1.pem")
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) {
			options.Decryption = &pulsar.MessageDecryptionInfo{KeyReader: reader}
		})
		put(s.producer(func(options *pulsar.ProducerOptions) {
			options.Encryption = &pulsar.ProducerEncryptionInfo{KeyReader: reader, Keys: []string{"first"}}
		}), "secret")
		equal(take(consumer, 1), []string{"secret"})
	})
	add("non-persistent", func(s *session) {
		s.topic = strings.Replace(s.topic, "persistent", "non-persistent", 1)
		consumer := s.consumer(nil)
		put(s.producer(nil), "x")
		equal(take(consumer, 1), []string{"x"})
	})
	add("statistics show the backlog", func(s *session) {
		consumer := s.consumer(nil)
		s.send(3)
		receive(consumer)
		status, answer := admin("GET", adminPath(s.topic)+"/stats", "")
		equal(status, 200)
		subscriptions, _ := answer["subscriptions"].(map[string]any)
		subscription, _ := subscriptions["s"].(map[string]any)
		equal(fmt.Sprint(subscription["msgBacklog"]), "3")
	})
}
