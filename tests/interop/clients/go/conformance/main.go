// The checks of ../../README.md with the official Go client.
//
// Without arguments it lists its checks; otherwise it runs those that are named, and prints a line with the result of each.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/sirupsen/logrus"
)

const (
	wait = 10 * time.Second
	// Nothing comes within it: as much as a busy machine needs to deliver what it should not.
	silence     = 700 * time.Millisecond
	atOnceMax   = 8
	checkMax    = time.Minute
	resultChars = 160
)

type check struct {
	name string
	// What it saw, if the two brokers may not differ in it.
	body func(*session) string
}

var checks []check

func add(name string, body func(*session)) {
	addSeen(name, func(s *session) string {
		body(s)
		return ""
	})
}

func addSeen(name string, body func(*session) string) { checks = append(checks, check{name, body}) }

// What a check panics with when something is not as it should be.
type failure struct{ text string }

func fail(format string, values ...any) { panic(failure{fmt.Sprintf(format, values...)}) }

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func got[T any](value T, err error) T {
	must(err)
	return value
}

func equal(left, right any) {
	if l, r := fmt.Sprint(left), fmt.Sprint(right); l != r {
		fail("%.80s, expected %.80s", l, r)
	}
}

func until(condition func() bool, what string) {
	for end := time.Now().Add(wait); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			fail("%s", what)
		}
	}
}

// The error without what differs from run to run; part of the result, so that both brokers have to give the same.
func refused(err error) string {
	if err == nil {
		fail("it was not refused")
	}
	var known *pulsar.Error
	if errors.As(err, &known) && known.Result() != pulsar.UnknownError {
		return fmt.Sprintf("refused: result %d", known.Result())
	}
	text := strings.TrimPrefix(err.Error(), "server error: ")
	return "refused: " + strings.SplitN(strings.SplitN(text, ":", 2)[0], " ", 2)[0]
}

// A client and a topic of its own for one check.
type session struct {
	client pulsar.Client
	topic  string
}

func connect(token string) pulsar.Client {
	quiet := logrus.New()
	quiet.SetLevel(logrus.PanicLevel)
	return got(pulsar.NewClient(pulsar.ClientOptions{
		URL:              os.Getenv("PULSAR_URL"),
		Authentication:   pulsar.NewAuthenticationToken(token),
		OperationTimeout: wait,
		Logger:           log.NewLoggerWithLogrus(quiet),
	}))
}

func newSession() *session {
	topic := fmt.Sprintf("persistent://public/default/conformance-%016x", rand.Uint64())
	return &session{connect(os.Getenv("PULSAR_TOKEN")), topic}
}

func (s *session) tryProducer(change func(*pulsar.ProducerOptions)) (pulsar.Producer, error) {
	options := pulsar.ProducerOptions{Topic: s.topic, DisableBatching: true}
	if change != nil {
		change(&options)
	}
	return s.client.CreateProducer(options)
}

func (s *session) producer(change func(*pulsar.ProducerOptions)) pulsar.Producer {
	return got(s.tryProducer(change))
}

func (s *session) tryConsumer(change func(*pulsar.ConsumerOptions)) (pulsar.Consumer, error) {
	options := pulsar.ConsumerOptions{
		Topic:                       s.topic,
		SubscriptionName:            "s",
		SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
	}
	if change != nil {
		change(&options)
		if options.Topics != nil || options.TopicsPattern != "" {
			options.Topic = ""
		}
	}
	return s.client.Subscribe(options)
}

func (s *session) consumer(change func(*pulsar.ConsumerOptions)) pulsar.Consumer {
	return got(s.tryConsumer(change))
}

func (s *session) consumerOf(kind pulsar.SubscriptionType) pulsar.Consumer {
	return s.consumer(func(options *pulsar.ConsumerOptions) { options.Type = kind })
}

func (s *session) reader(start pulsar.MessageID, inclusive bool) pulsar.Reader {
	return got(s.client.CreateReader(pulsar.ReaderOptions{
		Topic: s.topic, StartMessageID: start, StartMessageIDInclusive: inclusive,
	}))
}

// So many messages, "0" the first; their ids.
func (s *session) send(count int) []pulsar.MessageID {
	producer := s.producer(nil)
	defer producer.Close()
	var ids []pulsar.MessageID
	for at := range count {
		ids = append(ids, put(producer, fmt.Sprint(at)))
	}
	return ids
}

// So many messages in one batch.
func (s *session) sendBatch(count int) {
	producer := s.producer(func(options *pulsar.ProducerOptions) {
		options.DisableBatching = false
		options.BatchingMaxPublishDelay = time.Second / 2
	})
	defer producer.Close()
	for at := range count {
		message := pulsar.ProducerMessage{Payload: fmt.Append(nil, at)}
		producer.SendAsync(context.Background(), &message, func(pulsar.MessageID, *pulsar.ProducerMessage, error) {})
	}
	must(producer.Flush())
}

func trySend(producer pulsar.Producer, message pulsar.ProducerMessage) (pulsar.MessageID, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return producer.Send(ctx, &message)
}

func put(producer pulsar.Producer, payload string) pulsar.MessageID {
	return got(trySend(producer, pulsar.ProducerMessage{Payload: []byte(payload)}))
}

func tryReceive(consumer pulsar.Consumer, within time.Duration) (pulsar.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return consumer.Receive(ctx)
}

func receive(consumer pulsar.Consumer) pulsar.Message { return got(tryReceive(consumer, wait)) }

// The payloads of so many messages, acknowledged.
func take(consumer pulsar.Consumer, count int) []string {
	payloads := []string{}
	for range count {
		message := receive(consumer)
		payloads = append(payloads, string(message.Payload()))
		must(consumer.Ack(message))
	}
	return payloads
}

func nothing(consumer pulsar.Consumer) {
	if message, err := tryReceive(consumer, silence); err == nil {
		fail("%q came", message.Payload())
	}
}

func readAll(reader pulsar.Reader) []string {
	payloads := []string{}
	for reader.HasNext() {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		payloads = append(payloads, string(got(reader.Next(ctx)).Payload()))
		cancel()
	}
	return payloads
}

// The result of one check; what does not end in time is one too.
func run(body func(*session) string) string {
	done := make(chan string, 1)
	go func() {
		defer func() {
			if caught := recover(); caught != nil {
				text := fmt.Sprint(caught)
				if failed, ok := caught.(failure); ok {
					text = failed.text
				}
				done <- "FAILED: " + strings.ReplaceAll(text[:min(len(text), resultChars)], "\n", " ")
			}
		}()
		s := newSession()
		defer s.client.Close()
		if seen := body(s); seen != "" {
			done <- "ok (" + seen + ")"
		} else {
			done <- "ok"
		}
	}()
	select {
	case result := <-done:
		return result
	case <-time.After(checkMax):
		return "FAILED: it did not end"
	}
}

func main() {
	if len(os.Args) == 1 {
		for _, check := range checks {
			fmt.Println(check.name)
		}
		return
	}
	chosen := map[string]bool{}
	for _, name := range os.Args[1:] {
		chosen[name] = true
	}
	places := make(chan struct{}, atOnceMax)
	var print sync.Mutex
	var all sync.WaitGroup
	for _, one := range checks {
		if !chosen[one.name] {
			continue
		}
		all.Add(1)
		places <- struct{}{}
		go func() {
			defer all.Done()
			result := run(one.body)
			print.Lock()
			fmt.Printf("%s\t%s\n", one.name, result)
			print.Unlock()
			<-places
		}()
	}
	all.Wait()
}
