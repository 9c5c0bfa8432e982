package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

func init() {
	earliest, latest := pulsar.EarliestMessageID(), pulsar.LatestMessageID()
	add("seek to the earliest", func(s *session) {
		consumer := s.consumer(nil)
		s.send(3)
		take(consumer, 3)
		must(consumer.Seek(pulsar.NewMessageID(-1, -1, -1, 0)))
		equal(take(consumer, 3), numbers(3))
	})
	add("seek to the latest", func(s *session) {
		consumer := s.consumer(nil)
		s.send(3)
		must(consumer.Seek(pulsar.NewMessageID(math.MaxInt64, math.MaxInt64, -1, 0)))
		nothing(consumer)
	})
	add("seek to an id", func(s *session) {
		consumer := s.consumer(nil)
		ids := s.send(3)
		take(consumer, 3)
		must(consumer.Seek(ids[1]))
		payload := take(consumer, 1)[0]
		equal(payload, "2")
	})
	add("seek to a time", func(s *session) {
		consumer := s.consumer(nil)
		s.send(1)
		time.Sleep(300 * time.Millisecond)
		between := time.Now()
		time.Sleep(300 * time.Millisecond)
		s.send(2)
		take(consumer, 3)
		must(consumer.SeekByTime(between))
		equal(take(consumer, 2), numbers(2))
	})
	add("the last id", func(s *session) {
		consumer := s.consumer(nil)
		ids := s.send(3)
		last := got(consumer.GetLastMessageIDs())[0]
		equal([]int64{last.LedgerID(), last.EntryID()}, []int64{ids[2].LedgerID(), ids[2].EntryID()})
	})
	addSeen("the last id of an empty topic", func(s *session) string {
		return fmt.Sprint(got(s.consumer(nil).GetLastMessageIDs())[0].EntryID())
	})
	add("an id in bytes", func(s *session) {
		s.sendBatch(1)
		s.send(1)
		reader := s.reader(earliest, false)
		readAll(reader)
		id := got(reader.GetLastMessageID())
		again := got(pulsar.DeserializeMessageID(id.Serialize()))
		equal([]int64{again.LedgerID(), again.EntryID()}, []int64{id.LedgerID(), id.EntryID()})
	})
	add("reader from the earliest", func(s *session) {
		s.send(3)
		equal(readAll(s.reader(earliest, false)), numbers(3))
	})
	add("reader from the latest", func(s *session) {
		s.send(2)
		reader := s.reader(latest, false)
		put(s.producer(nil), "next")
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		equal(string(got(reader.Next(ctx)).Payload()), "next")
	})
	add("reader behind an id", func(s *session) {
		equal(readAll(s.reader(s.send(3)[1], false)), []string{"2"})
	})
	add("reader at an id", func(s *session) {
		equal(readAll(s.reader(s.send(3)[1], true)), []string{"1", "2"})
	})
	add("reader of batches", func(s *session) {
		s.sendBatch(3)
		equal(readAll(s.reader(earliest, false)), numbers(3))
	})
	add("reader of an empty topic", func(s *session) { equal(len(readAll(s.reader(earliest, false))), 0) })
	add("reader seeks a time", func(s *session) {
		s.send(1)
		reader := s.reader(earliest, false)
		equal(readAll(reader), numbers(1))
		must(reader.SeekByTime(time.Now().Add(-time.Minute)))
		equal(readAll(reader), numbers(1))
	})
	add("table view", func(s *session) {
		schema := pulsar.NewStringSchema(nil)
		producer := s.producer(func(options *pulsar.ProducerOptions) { options.Schema = schema })
		send := func(key, value string) { got(trySend(producer, pulsar.ProducerMessage{Key: key, Value: value})) }
		send("a", "1")
		send("b", "2")
		send("a", "3")
		var text *string
		view := got(s.client.CreateTableView(pulsar.TableViewOptions{
			Topic: s.topic, Schema: schema, SchemaValueType: valueType(text),
		}))
		value := func(key string) string {
			if found, is := view.Get(key).(*string); is && found != nil {
				return *found
			}
			return ""
		}
		equal([]string{value("a"), value("b"), value("c")}, []string{"3", "2", ""})
		send("c", "4")
		until(func() bool { return value("c") == "4" }, "no c")
	})
}
