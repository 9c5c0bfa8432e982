// The official Go client behind the line protocol of ../README.md.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/crypto"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/sirupsen/logrus"
)

type message struct {
	Payload     *string           `json:"payload"`
	Key         string            `json:"key,omitempty"`
	OrderingKey string            `json:"ordering_key,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"`
	EventTime   int64             `json:"event_time,omitempty"`
	ID          string            `json:"id,omitempty"`
}

type request struct {
	Do           string    `json:"do"`
	Topic        string    `json:"topic"`
	Subscription string    `json:"subscription"`
	Count        int       `json:"count"`
	Batching     bool      `json:"batching"`
	ByKey        bool      `json:"by_key"`
	Chunking     bool      `json:"chunking"`
	Compression  string    `json:"compression"`
	Hashing      string    `json:"hashing"`
	Messages     []message `json:"messages"`
	Keys         *keys     `json:"keys"`
	TokenFile    string    `json:"token_file"`
	From         string    `json:"from"`
	To           string    `json:"to"`
	Places       []place   `json:"places"`
	Bytes        int       `json:"bytes"`
}

// An id, and the topic that it is of.
type place struct {
	Topic   string  `json:"topic"`
	Parent  *string `json:"parent"`
	IDBytes string  `json:"id_bytes"`
}

// A key, and the files that it is in.
type keys struct {
	Name    string `json:"name"`
	Public  string `json:"public"`
	Private string `json:"private"`
}

func (keys *keys) reader() crypto.KeyReader {
	return crypto.NewFileKeyReader(keys.Public, keys.Private)
}

// It discards an empty message outside a batch as damaged, its JavaStringHash keeps the sign bit that Java drops, it reads
// behind an id only if it has a partition and a batch index, 0 where there are none, and its table view asks for a schema
// that a topic without one refuses.
var lacks = []string{
	"null", "key_bytes", "empty", "java_hash", "give_up", "send_keys", "read_pattern", "replicate_to", "plain_ids",
	"read_table",
}

func main() {
	client, err := connect(pulsar.NewAuthenticationToken(os.Getenv("PULSAR_TOKEN")))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		answer, err := serve(client, line)
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		text, _ := json.Marshal(answer)
		fmt.Println(string(text))
	}
}

func connect(authentication pulsar.Authentication) (pulsar.Client, error) {
	logger := logrus.New()
	logger.SetLevel(logrus.ErrorLevel)
	return pulsar.NewClient(pulsar.ClientOptions{
		URL:            os.Getenv("PULSAR_URL"),
		Authentication: authentication,
		Logger:         log.NewLoggerWithLogrus(logger),
	})
}

func serve(client pulsar.Client, line []byte) (any, error) {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	switch asked.Do {
	case "info":
		return map[string]any{"client": "Go", "version": version(), "lacks": lacks}, nil
	case "produce":
		return produce(client, &asked)
	case "echo":
		return echo(&asked)
	case "read_ids":
		return readIDs(client, &asked)
	case "read_behind":
		return readBehind(client, &asked)
	default:
		return consume(client, &asked)
	}
}

func version() string {
	build, _ := debug.ReadBuildInfo()
	for _, module := range build.Deps {
		if module.Path == "github.com/apache/pulsar-client-go" {
			return module.Version
		}
	}
	return "unknown"
}

var codecs = map[string]pulsar.CompressionType{
	"LZ4":    pulsar.LZ4,
	"ZLIB":   pulsar.ZLib,
	"ZSTD":   pulsar.ZSTD,
	"SNAPPY": pulsar.SNAPPY,
}

func produce(client pulsar.Client, asked *request) (any, error) {
	options := pulsar.ProducerOptions{
		Topic:                   asked.Topic,
		DisableBatching:         !asked.Batching,
		EnableChunking:          asked.Chunking,
		BatchingMaxPublishDelay: 20 * time.Millisecond,
		HashingScheme:           pulsar.JavaStringHash,
		CompressionType:         codecs[asked.Compression],
	}
	if asked.ByKey {
		options.BatcherBuilderType = pulsar.KeyBasedBatchBuilder
	}
	if asked.Hashing == "murmur3" {
		options.HashingScheme = pulsar.Murmur3_32Hash
	}
	if asked.Keys != nil {
		options.Encryption = &pulsar.ProducerEncryptionInfo{
			KeyReader: asked.Keys.reader(),
			Keys:      []string{asked.Keys.Name},
		}
	}
	producer, err := client.CreateProducer(options)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	ids := make([]string, len(asked.Messages))
	failures := make(chan error, len(asked.Messages))
	for at, sent := range asked.Messages {
		payload, err := hex.DecodeString(*sent.Payload)
		if err != nil {
			return nil, err
		}
		orderingKey, err := hex.DecodeString(sent.OrderingKey)
		if err != nil {
			return nil, err
		}
		built := &pulsar.ProducerMessage{
			Payload:     payload,
			Key:         sent.Key,
			OrderingKey: string(orderingKey),
			Properties:  sent.Properties,
		}
		if sent.EventTime != 0 {
			built.EventTime = time.UnixMilli(sent.EventTime)
		}
		producer.SendAsync(context.Background(), built, func(id pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
			if err == nil {
				ids[at] = idOf(id)
			}
			failures <- err
		})
	}
	if err := producer.Flush(); err != nil {
		return nil, err
	}
	for range asked.Messages {
		if err := <-failures; err != nil {
			return nil, err
		}
	}
	return map[string]any{"ids": ids}, nil
}

func echo(asked *request) (any, error) {
	var tokens atomic.Int64
	client, err := connect(pulsar.NewAuthenticationTokenFromSupplier(func() (string, error) {
		tokens.Add(1)
		token, err := os.ReadFile(asked.TokenFile)
		return string(token), err
	}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: asked.To})
	if err != nil {
		return nil, err
	}
	consumer, err := subscribe(client, asked.From, "theirs", nil)
	if err != nil {
		return nil, err
	}
	for text := ""; text != "end"; {
		received, err := receive(consumer)
		if err != nil {
			return nil, err
		}
		text = string(received.Payload())
		if _, err := producer.Send(context.Background(), &pulsar.ProducerMessage{Payload: received.Payload()}); err != nil {
			return nil, err
		}
		if err := consumer.AckID(received.ID()); err != nil {
			return nil, err
		}
	}
	return map[string]any{"tokens": tokens.Load()}, nil
}

func subscribe(client pulsar.Client, topic, name string, keys *keys) (pulsar.Consumer, error) {
	options := pulsar.ConsumerOptions{
		Topic:                       topic,
		SubscriptionName:            name,
		SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
	}
	if keys != nil {
		options.Decryption = &pulsar.MessageDecryptionInfo{KeyReader: keys.reader()}
	}
	return client.Subscribe(options)
}

func receive(consumer pulsar.Consumer) (pulsar.Message, error) {
	within, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return consumer.Receive(within)
}

func consume(client pulsar.Client, asked *request) (any, error) {
	consumer, err := subscribe(client, asked.Topic, asked.Subscription, asked.Keys)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	messages := []message{}
	for range asked.Count {
		received, err := receive(consumer)
		if err != nil {
			return nil, err
		}
		payload := hex.EncodeToString(received.Payload())
		seen := message{
			Payload:     &payload,
			Key:         received.Key(),
			OrderingKey: hex.EncodeToString([]byte(received.OrderingKey())),
			Properties:  received.Properties(),
			ID:          idOf(received.ID()),
		}
		if at := received.EventTime(); at.UnixMilli() > 0 {
			seen.EventTime = at.UnixMilli()
		}
		messages = append(messages, seen)
		if err := consumer.AckID(received.ID()); err != nil {
			return nil, err
		}
	}
	return map[string]any{"messages": messages}, nil
}

func readIDs(client pulsar.Client, asked *request) (any, error) {
	options := pulsar.ReaderOptions{Topic: asked.Topic, StartMessageID: pulsar.EarliestMessageID()}
	reader, err := client.CreateReader(options)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	messages := []map[string]string{}
	for range asked.Count {
		received, err := next(reader)
		if err != nil {
			return nil, err
		}
		messages = append(messages, map[string]string{
			"payload":  start(received, asked.Bytes),
			"id_bytes": hex.EncodeToString(received.ID().Serialize()),
		})
	}
	return map[string]any{"messages": messages}, nil
}

func readBehind(client pulsar.Client, asked *request) (any, error) {
	found := []map[string]any{}
	for _, place := range asked.Places {
		one, err := behind(client, place, asked.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return map[string]any{"found": found}, nil
}

func behind(client pulsar.Client, place place, bytes int) (map[string]any, error) {
	written, err := hex.DecodeString(place.IDBytes)
	if err != nil {
		return nil, err
	}
	id, err := pulsar.DeserializeMessageID(written)
	if err != nil {
		return nil, err
	}
	reader, err := client.CreateReader(pulsar.ReaderOptions{Topic: place.Topic, StartMessageID: id})
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	read, err := next(reader)
	if err != nil {
		return nil, err
	}
	payloads := []string{start(read, bytes)}
	// A consumer of a partitioned topic does not seek.
	if place.Parent == nil {
		received, err := sought(client, place.Topic, id)
		if err != nil {
			return nil, err
		}
		payloads = append(payloads, start(received, bytes))
	}
	return map[string]any{"payloads": payloads, "id_bytes": hex.EncodeToString(id.Serialize())}, nil
}

// What a consumer receives that has gone to the id.
func sought(client pulsar.Client, topic string, id pulsar.MessageID) (pulsar.Message, error) {
	consumer, err := subscribe(client, topic, "behind", nil)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	if err := consumer.Seek(id); err != nil {
		return nil, err
	}
	return receive(consumer)
}

func next(reader pulsar.Reader) (pulsar.Message, error) {
	within, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return reader.Next(within)
}

func start(message pulsar.Message, bytes int) string {
	payload := message.Payload()
	return string(payload[:min(len(payload), bytes)])
}

func idOf(id pulsar.MessageID) string {
	return fmt.Sprintf("%d:%d:%d:%d", id.LedgerID(), id.EntryID(), id.PartitionIdx(), id.BatchIdx())
}
