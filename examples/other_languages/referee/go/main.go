// The official Go client behind the line protocol of `pulsar-native referee`.
package main

import (
	"bufio"
	"bytes"
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
	messages  []pulsar.Message
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

// Calls set for each option, which says whether there is such an option.
func options(words []string, set func(name, value string) bool) error {
	for _, word := range words {
		if name, value, _ := strings.Cut(word, "="); !set(name, value) {
			return fmt.Errorf("%w %s", errUnsupported, word)
		}
	}
	return nil
}

func connect(url string, words []string) error {
	with := pulsar.ClientOptions{URL: url}
	err := options(words, func(name, value string) bool {
		switch name {
		case "operation_timeout_ms":
			with.OperationTimeout = millis(value)
		case "connection_timeout_ms":
			with.ConnectionTimeout = millis(value)
		case "keep_alive_ms":
			with.KeepAliveInterval = millis(value)
		case "token_file":
			with.Authentication = pulsar.NewAuthenticationTokenFromFile(value)
		default:
			return false
		}
		return true
	})
	if err == nil {
		client, err = pulsar.NewClient(with)
	}
	return err
}

func produce(name, topic string, words []string) error {
	with := pulsar.ProducerOptions{Topic: topic}
	err := options(words, func(name, value string) bool {
		switch name {
		case "batching":
			with.DisableBatching = value == "false"
		case "send_timeout_ms":
			with.SendTimeout = millis(value)
		case "producer_name":
			with.Name = value
		case "access_mode":
			with.ProducerAccessMode = pulsar.ProducerAccessModeExclusive
		default:
			return false
		}
		return true
	})
	if err == nil {
		producers[name], err = client.CreateProducer(with)
	}
	return err
}

func subscribe(name, topic, subscription, kind string, words []string) error {
	with := pulsar.ConsumerOptions{Topic: topic, SubscriptionName: subscription, Type: types[kind]}
	err := options(words, func(name, value string) bool {
		switch name {
		case "position":
			with.SubscriptionInitialPosition = pulsar.SubscriptionPositionEarliest
		case "queue":
			with.ReceiverQueueSize, _ = strconv.Atoi(value)
		case "nack_delay_ms":
			with.NackRedeliveryDelay = millis(value)
		case "batch_index_ack":
			with.EnableBatchIndexAcknowledgment = value == "true"
		default:
			return false
		}
		return true
	})
	if err == nil {
		consumers[name], err = client.Subscribe(with)
	}
	return err
}

func send(name, number, payload string) {
	data := []byte(payload)
	if count, ok := strings.CutPrefix(payload, "bytes:"); ok {
		size, _ := strconv.Atoi(count)
		data = bytes.Repeat([]byte{'x'}, size)
	}
	message := pulsar.ProducerMessage{Payload: data}
	producers[name].SendAsync(context.Background(), &message, func(id pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
		if err != nil {
			say("sent %s error %v", number, err)
		} else {
			say("sent %s ok %d:%d", number, id.LedgerID(), id.EntryID())
		}
	})
}

func receive(name, wait string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), millis(wait))
	defer cancel()
	message, err := consumers[name].Receive(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return "none", nil
	} else if err != nil {
		return "", err
	}
	messages = append(messages, message)
	payload := string(message.Payload())
	if len(payload) > 1000 {
		payload = fmt.Sprintf("bytes:%d", len(payload))
	}
	return fmt.Sprintf("ok %d %d %s", len(messages)-1, message.RedeliveryCount(), payload), nil
}

func answer(words []string) (string, error) {
	received := func() pulsar.Message {
		number, _ := strconv.Atoi(words[2])
		return messages[number]
	}
	switch words[0] {
	case "connect":
		return "ok", connect(words[1], words[2:])
	case "producer":
		return "ok", produce(words[1], words[2], words[3:])
	case "subscribe":
		return "ok", subscribe(words[1], words[2], words[3], words[4], words[5:])
	case "send":
		send(words[1], words[2], strings.Join(words[3:], " "))
	case "receive":
		return receive(words[1], words[2])
	case "ack":
		return "ok", consumers[words[1]].Ack(received())
	case "ack_cumulative":
		return "ok", consumers[words[1]].AckCumulative(received())
	case "nack":
		consumers[words[1]].Nack(received())
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
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == "github.com/apache/pulsar-client-go" {
				say("ready pulsar-client-go %s", module.Version)
			}
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
