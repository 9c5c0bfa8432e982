// The Go client, with its best settings for each kind of work:
//
//   - SendAsync, 5,000 pending messages per client, no limit of memory, no metrics, no logging;
//   - batches of up to the asked count and 1 MiB, published after 1 ms at the latest; DisableBatching where the work is
//     without;
//   - 5,000 messages in the receiver queue, messages taken from its channel, acknowledgements grouped as by default
//     (1,000 or 100 ms);
//   - for latencies, batches at the high rate, with the delay that suits it best, and none at the low one.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/sirupsen/logrus"
)

// Before latencies count, brokers and connections warm up for this time.
const latencyWarmUpSecs = 2

const texts = 1024

type job struct {
	workload, url string
	words         map[string]string
}

func (j job) number(name string) int {
	number, _ := strconv.Atoi(j.words[name])
	return number
}

func main() {
	j := job{workload: os.Args[1], url: os.Args[2], words: map[string]string{}}
	for _, word := range os.Args[3:] {
		name, value, _ := strings.Cut(word, "=")
		j.words[name] = value
	}
	var figures string
	switch j.workload {
	case "produce":
		figures = produce(j)
	case "consume":
		figures = consume(j)
	case "latency":
		figures = latency(j)
	default:
		figures = start(j)
	}
	fmt.Println(figures)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func client(j job) pulsar.Client {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	silent.SetLevel(logrus.ErrorLevel)
	options := pulsar.ClientOptions{
		URL:                j.url,
		Logger:             log.NewLoggerWithLogrus(silent),
		MetricsCardinality: pulsar.MetricsCardinalityNone,
		MemoryLimitBytes:   -1,
	}
	if token := os.Getenv("PULSAR_TOKEN"); token != "" {
		options.Authentication = pulsar.NewAuthenticationToken(token)
	}
	client, err := pulsar.NewClient(options)
	check(err)
	return client
}

var codecs = map[string]pulsar.CompressionType{
	"lz4":    pulsar.LZ4,
	"zlib":   pulsar.ZLib,
	"zstd":   pulsar.ZSTD,
	"snappy": pulsar.SNAPPY,
}

func producer(c pulsar.Client, j job, topic string, pending int) pulsar.Producer {
	batch := j.number("batch")
	options := pulsar.ProducerOptions{
		Topic:                   topic,
		MaxPendingMessages:      pending,
		DisableBatching:         batch <= 1,
		BatchingMaxMessages:     uint(max(batch, 1)),
		BatchingMaxSize:         1024 * 1024,
		BatchingMaxPublishDelay: time.Duration(max(j.number("delay_ms"), 1)) * time.Millisecond,
	}
	options.CompressionType = codecs[j.words["codec"]]
	producer, err := c.CreateProducer(options)
	check(err)
	return producer
}

func produce(j job) string {
	c := client(j)
	producers := make([]pulsar.Producer, max(j.number("producers"), 1))
	pending := max(j.number("in_flight")/len(producers), 1)
	for number := range producers {
		topic := fmt.Sprintf("%s%d", j.words["topic"], number)
		producers[number] = producer(c, j, topic, pending)
	}
	payloads := j.payloads()
	messages := j.number("messages")
	produceSome(producers, payloads, j.number("warm_up"))
	start := startMeasurement()
	produceSome(producers, payloads, messages)
	return start.stop(messages)
}

// SendAsync waits by itself when the window of its producer is full.
func produceSome(producers []pulsar.Producer, payloads [][]byte, messages int) {
	var stored sync.WaitGroup
	stored.Add(messages)
	done := func(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
		check(err)
		stored.Done()
	}
	for number := range messages {
		message := &pulsar.ProducerMessage{Payload: payloads[number%len(payloads)]}
		producers[number%len(producers)].SendAsync(context.Background(), message, done)
	}
	stored.Wait()
}

func consumer(c pulsar.Client, j job) pulsar.Consumer {
	consumer, err := c.Subscribe(pulsar.ConsumerOptions{
		Topics:                      j.topics(),
		SubscriptionName:            j.words["subscription"],
		Type:                        pulsar.Shared,
		SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
		ReceiverQueueSize:           max(j.number("queue"), 1),
	})
	check(err)
	return consumer
}

// One, or as many as there are, numbered.
func (j job) topics() []string {
	topic, count := j.words["topic"], j.number("topics")
	if count < 2 {
		return []string{topic}
	}
	topics := make([]string, count)
	for number := range topics {
		topics[number] = fmt.Sprintf("%s-%d", topic, number)
	}
	return topics
}

func consume(j job) string {
	c := consumer(client(j), j)
	messages := j.number("messages")
	take(c, j, j.number("warm_up"))
	start := startMeasurement()
	take(c, j, messages)
	figures := start.stop(messages)
	c.Close()
	return figures
}

func take(c pulsar.Consumer, j job, messages int) {
	taken := 0
	for range messages {
		message := <-c.Chan()
		taken += len(message.Payload())
		check(c.Ack(message))
	}
	if taken != messages*j.number("size") {
		check(fmt.Errorf("%d bytes came", taken))
	}
}

// A message of a process that has just begun, there and back.
func start(j job) string {
	c := client(j)
	in := consumer(c, j)
	message := &pulsar.ProducerMessage{Payload: j.payloads()[0]}
	_, err := producer(c, j, j.words["topic"], 1000).Send(context.Background(), message)
	check(err)
	check(in.Ack(<-in.Chan()))
	return fmt.Sprintf("cpu_ns=%d rss_kib=%d", cpuNs(), residentKib())
}

// Messages at a fixed rate, however long each takes; latencies count from when a message was due.
func latency(j job) string {
	c := client(j)
	in := consumer(c, j)
	rate, messages, size := j.number("rate"), j.number("messages"), j.number("size")
	out := producer(c, j, j.words["topic"], 65536)
	gap := time.Second / time.Duration(rate)
	start := time.Now()
	go func() {
		stored := func(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) { check(err) }
		for number := range messages {
			due := gap * time.Duration(number)
			if early := due - time.Since(start); early > 0 {
				time.Sleep(early)
			}
			payload := make([]byte, max(size, 8))
			binary.LittleEndian.PutUint64(payload, uint64(due))
			out.SendAsync(context.Background(), &pulsar.ProducerMessage{Payload: payload}, stored)
		}
	}()
	warmUp := min(latencyWarmUpSecs*rate, messages/2)
	latencies := make([]time.Duration, 0, messages)
	for number := range messages {
		message := <-in.Chan()
		due := time.Duration(binary.LittleEndian.Uint64(message.Payload()))
		if number >= warmUp {
			latencies = append(latencies, time.Since(start)-due)
		}
		check(in.Ack(message))
	}
	sort.Slice(latencies, func(a, b int) bool { return latencies[a] < latencies[b] })
	at := func(part float64) int64 {
		return latencies[min(int(float64(len(latencies))*part), len(latencies)-1)].Nanoseconds()
	}
	return fmt.Sprintf("n=%d p50_ns=%d p99_ns=%d p999_ns=%d max_ns=%d", len(latencies), at(0.5), at(0.99), at(0.999), at(1))
}

// Under a codec texts, else one payload; the same as the Rust programs send.
func (j job) payloads() [][]byte {
	size := j.number("size")
	if j.words["codec"] == "" {
		return [][]byte{[]byte(strings.Repeat("x", size))}
	}
	all := make([][]byte, texts)
	for number := range all {
		state := uint64(number + 1)
		var text strings.Builder
		for text.Len() < size {
			state ^= state << 13
			state ^= state >> 7
			state ^= state << 17
			fmt.Fprintf(&text, "field=\"%016x\" ", state)
		}
		all[number] = []byte(text.String()[:size])
	}
	return all
}

type measurement struct {
	at    time.Time
	cpuNs int64
}

func startMeasurement() measurement { return measurement{time.Now(), cpuNs()} }

func (g measurement) stop(messages int) string {
	secs := time.Since(g.at).Seconds()
	return fmt.Sprintf("messages=%d secs=%.6f cpu_ns=%d rss_kib=%d", messages, secs, cpuNs()-g.cpuNs, residentKib())
}

// CPU time of all threads that are alive, as the Rust programs count it.
func cpuNs() int64 {
	tasks, _ := filepath.Glob("/proc/self/task/*/schedstat")
	total := int64(0)
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err == nil {
			ns, _ := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
			total += ns
		}
	}
	return total
}

// The most memory the process ever had resident.
func residentKib() int64 {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib
		}
	}
	return 0
}
