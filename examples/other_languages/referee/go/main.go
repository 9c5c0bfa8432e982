// The official Go client behind the line protocol of `pulsar-native referee`.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

var (
	client    pulsar.Client
	producers = map[string]pulsar.Producer{}
	consumers = map[string]pulsar.Consumer{}
	messages  = map[string]pulsar.Message{}
	output    sync.Mutex

	errUnsupported = errors.New("unsupported")
	types          = map[string]pulsar.SubscriptionType{
		"exclusive": pulsar.Exclusive, "shared": pulsar.Shared, "failover": pulsar.Failover, "key_shared": pulsar.KeyShared,
	}
)

func say(format string, values ...any) {
	output.Lock()
	defer output.Unlock()
	fmt.Println(strings.ReplaceAll(fmt.Sprintf(format, values...), "\n", " "))
}

func millis(value string) time.Duration {
	number, _ := strconv.Atoi(value)
	return time.Duration(number) * time.Millisecond
}

// What the options of a request say: each is of one of the three.
func options(words []string) (c pulsar.ClientOptions, p pulsar.ProducerOptions, s pulsar.ConsumerOptions, err error) {
	p.DisableBatching = true
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "connection_timeout_ms":
			c.ConnectionTimeout = millis(value)
		case "keep_alive_ms":
			c.KeepAliveInterval = millis(value)
		case "token_file":
			c.Authentication = pulsar.NewAuthenticationTokenFromFile(value)
		case "batching":
			p.DisableBatching = value != "true"
		case "send_timeout_ms":
			p.SendTimeout = millis(value)
		case "producer_name":
			p.Name = value
		case "access_mode":
			p.ProducerAccessMode = pulsar.ProducerAccessModeExclusive
		case "nack_delay_ms":
			s.NackRedeliveryDelay = millis(value)
		case "batch_index_ack":
			s.EnableBatchIndexAcknowledgment = value == "true"
		default:
			err = fmt.Errorf("%w %s", errUnsupported, word)
		}
	}
	return
}

func connect(url, timeout string, words []string) error {
	with, _, _, err := options(words)
	with.URL, with.OperationTimeout = url, millis(timeout)
	if err == nil {
		client, err = pulsar.NewClient(with)
	}
	return err
}

func produce(name, topic string, words []string) error {
	_, with, _, err := options(words)
	with.Topic = topic
	if err == nil {
		producers[name], err = client.CreateProducer(with)
	}
	return err
}

func subscribe(name, topic, subscription, kind, queue string, words []string) error {
	_, _, with, err := options(words)
	with.Topic, with.SubscriptionName, with.Type = topic, subscription, types[kind]
	with.SubscriptionInitialPosition = pulsar.SubscriptionPositionEarliest
	with.ReceiverQueueSize, _ = strconv.Atoi(queue)
	if err == nil {
		consumers[name], err = client.Subscribe(with)
	}
	return err
}

func send(name, number, payload string) {
	sent := func(id pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
		if err != nil {
			say("sent %s error %v", number, err)
		} else {
			say("sent %s ok %d:%d", number, id.LedgerID(), id.EntryID())
		}
	}
	producers[name].SendAsync(context.Background(), &pulsar.ProducerMessage{Payload: []byte(payload)}, sent)
}

func receive(consumer, name, wait string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), millis(wait))
	defer cancel()
	message, err := consumers[consumer].Receive(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return "none", nil
	} else if err != nil {
		return "", err
	}
	messages[name] = message
	payload := string(message.Payload())
	text := strings.ToValidUTF8(payload[:min(len(payload), 1000)], "?")
	return fmt.Sprintf("ok %d %s", message.RedeliveryCount(), text), nil
}

func answer(words []string) (string, error) {
	switch words[0] {
	case "connect":
		return "ok", connect(words[1], words[2], words[3:])
	case "producer":
		return "ok", produce(words[1], words[2], words[3:])
	case "subscribe":
		return "ok", subscribe(words[1], words[2], words[3], words[4], words[5], words[6:])
	case "send":
		send(words[1], words[2], strings.Join(words[3:], " "))
	case "receive":
		return receive(words[1], words[2], words[3])
	case "ack":
		return "ok", consumers[words[1]].Ack(messages[words[2]])
	case "ack_cumulative":
		return "ok", consumers[words[1]].AckCumulative(messages[words[2]])
	case "nack":
		consumers[words[1]].Nack(messages[words[2]])
	case "close":
		if producer, ok := producers[words[1]]; ok {
			producer.Close()
		} else {
			consumers[words[1]].Close()
		}
	case "exit":
		if client != nil {
			client.Close()
		}
	default:
		return "", errUnsupported
	}
	return "ok", nil
}

func main() {
	build, _ := debug.ReadBuildInfo()
	for _, module := range build.Deps {
		if module.Path == "github.com/apache/pulsar-client-go" {
			say("ready pulsar-client-go %s", module.Version)
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		text, err := answer(strings.Split(lines.Text(), " "))
		switch {
		case err == nil:
			say("%s", text)
		case errors.Is(err, errUnsupported):
			say("%v", err)
		default:
			say("error %v", err)
		}
		if lines.Text() == "exit" {
			return
		}
	}
}
