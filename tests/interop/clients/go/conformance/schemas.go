package main

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"strings"

	"github.com/apache/pulsar-client-go/pulsar"
)

const (
	orderSchema = `{"type":"record","name":"Order","fields":[{"name":"Item","type":"string"},{"name":"Count","type":"int"}]}`
	otherSchema = `{"type":"record","name":"Other","fields":[{"name":"Item","type":"int"}]}`
)

type order struct {
	Item  string
	Count int
}

func valueType(of any) reflect.Type { return reflect.TypeOf(of) }

// The status of a call of the admin API, and its answer.
func admin(method, path, body string) (int, map[string]any) {
	request := got(http.NewRequest(method, os.Getenv("PULSAR_ADMIN_URL")+"/admin/v2/"+path, strings.NewReader(body)))
	request.Header.Set("Authorization", "Bearer "+os.Getenv("PULSAR_TOKEN"))
	request.Header.Set("Content-Type", "application/json")
	answer := got(http.DefaultClient.Do(request))
	defer answer.Body.Close()
	var values map[string]any
	_ = json.NewDecoder(answer.Body).Decode(&values)
	return answer.StatusCode, values
}

func adminPath(topic string) string { return strings.Replace(topic, "://", "/", 1) }

func with(schema pulsar.Schema) func(*pulsar.ProducerOptions) {
	return func(options *pulsar.ProducerOptions) { options.Schema = schema }
}

func typed[T any](schema pulsar.Schema, value T) func(*session) {
	return func(s *session) {
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) { options.Schema = schema })
		got(trySend(s.producer(with(schema)), pulsar.ProducerMessage{Value: value}))
		var received T
		must(receive(consumer).GetSchemaValue(&received))
		equal(received, value)
	}
}

func typedPointer[T any](schema pulsar.Schema, value T) func(*session) {
	return func(s *session) {
		consumer := s.consumer(func(options *pulsar.ConsumerOptions) { options.Schema = schema })
		got(trySend(s.producer(with(schema)), pulsar.ProducerMessage{Value: value}))
		received := new(T)
		must(receive(consumer).GetSchemaValue(&received))
		equal(*received, value)
	}
}

func refusedToken(token func() string) func(*session) string {
	return func(s *session) string {
		client := connect(token())
		defer client.Close()
		_, err := client.CreateProducer(pulsar.ProducerOptions{Topic: s.topic})
		return refused(err)
	}
}

func refusedTopic(of string) func(*session) string {
	return func(s *session) string {
		_, err := s.tryProducer(func(options *pulsar.ProducerOptions) {
			options.Topic = strings.Replace(s.topic, "public/default", of, 1)
		})
		return refused(err)
	}
}

func init() {
	order := order{Item: "tea", Count: 2}
	json := pulsar.NewJSONSchema(orderSchema, nil)
	add("schema json", typed(json, order))
	add("schema avro", typed(pulsar.NewAvroSchema(orderSchema, nil), order))
	add("schema string", typedPointer(pulsar.NewStringSchema(nil), "t\u00e9a"))
	add("schema int32", typed(pulsar.NewInt32Schema(nil), int32(-7)))
	add("schema int64", typed(pulsar.NewInt64Schema(nil), int64(-7_000_000_000)))
	add("schema double", typed(pulsar.NewDoubleSchema(nil), 2.5))
	addSeen("schema json is registered", func(s *session) string {
		s.producer(with(json))
		_, answer := admin("GET", "schemas/"+strings.TrimPrefix(s.topic, "persistent://")+"/schema", "")
		kind, _ := answer["type"].(string)
		return kind
	})
	addSeen("another schema is refused", func(s *session) string {
		s.producer(with(json))
		_, err := s.tryProducer(with(pulsar.NewJSONSchema(otherSchema, nil)))
		return refused(err)
	})
	addSeen("another type of schema is refused", func(s *session) string {
		s.producer(with(json))
		_, err := s.tryProducer(with(pulsar.NewStringSchema(nil)))
		return refused(err)
	})
	addSeen("a consumer's other schema is refused", func(s *session) string {
		s.producer(with(json))
		_, err := s.tryConsumer(func(options *pulsar.ConsumerOptions) {
			options.Schema = pulsar.NewJSONSchema(otherSchema, nil)
		})
		return refused(err)
	})
	add("bytes of a topic with a schema", func(s *session) {
		consumer := s.consumer(nil)
		got(trySend(s.producer(with(pulsar.NewStringSchema(nil))), pulsar.ProducerMessage{Value: "tea"}))
		equal(take(consumer, 1), []string{"tea"})
	})
	addSeen("a wrong token is refused", refusedToken(func() string {
		token := os.Getenv("PULSAR_TOKEN")
		return token[:len(token)-8] + "AAAAAAAA"
	}))
	addSeen("an expired token is refused", refusedToken(func() string { return os.Getenv("PULSAR_EXPIRED_TOKEN") }))
	addSeen("a role without rights is refused", refusedToken(func() string { return os.Getenv("PULSAR_NOBODY_TOKEN") }))
	addSeen("a missing namespace is refused", refusedTopic("public/missing"))
	addSeen("a missing topic is refused", refusedTopic("public/strict"))
	add("a deleted topic is gone", func(s *session) {
		s.send(1)
		status, _ := admin("DELETE", adminPath(s.topic), "")
		equal(status, 204)
		equal(len(readAll(s.reader(pulsar.EarliestMessageID(), false))), 0)
	})
}
