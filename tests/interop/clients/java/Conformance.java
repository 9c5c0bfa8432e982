import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.UnaryOperator;
import java.util.regex.Pattern;
import org.apache.pulsar.client.api.*;

/**
 * The checks of ../README.md with the official Java client.
 *
 * <p>Without arguments it lists its checks; otherwise it runs those that are named, and prints a line with the result of each.
 */
public class Conformance {
    private static final int WAIT_MS = 10_000;
    /** Nothing comes within it: as much as a busy machine needs to deliver what it should not. */
    private static final int SILENCE_MS = 700;
    private static final int AT_ONCE_MAX = 8;
    private static final int CHECK_SECONDS_MAX = 60;
    /** More than a message may have by default. */
    private static final int BIG_BYTES = 6_000_000;
    private static final Map<String, Check> CHECKS = new LinkedHashMap<>();

    /** Gives what it saw, if the two brokers may not differ in it, else null. */
    private interface Check {
        String run(Session session) throws Exception;
    }

    private interface Body {
        void run(Session session) throws Exception;
    }

    private interface Call {
        void run() throws Exception;
    }

    public static class Order {
        public String item;
        public int count;
    }

    public static class Other {
        public int item;
    }

    // --- what checks are made of ---

    /** A client and a topic of its own for one check. */
    private static final class Session {
        final PulsarClient client;
        String topic = "persistent://public/default/conformance-" + UUID.randomUUID();

        Session() throws PulsarClientException {
            client = connect(System.getenv("PULSAR_TOKEN"));
        }

        ProducerBuilder<byte[]> producer() {
            return client.newProducer().topic(topic).enableBatching(false);
        }

        ConsumerBuilder<byte[]> consumer() {
            return client.newConsumer().topic(topic).subscriptionName("s")
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest);
        }

        Consumer<byte[]> consumer(SubscriptionType type) throws PulsarClientException {
            return consumer().subscriptionType(type).subscribe();
        }

        Reader<byte[]> reader(MessageId start) throws PulsarClientException {
            return client.newReader().topic(topic).startMessageId(start).create();
        }

        /** So many messages, "0" the first; their ids. */
        List<MessageId> send(int count) throws PulsarClientException {
            List<MessageId> ids = new ArrayList<>();
            try (Producer<byte[]> producer = producer().create()) {
                for (int at = 0; at < count; at++) {
                    ids.add(producer.send(bytes("" + at)));
                }
            }
            return ids;
        }

        /** So many messages in one batch. */
        void sendBatch(int count) throws PulsarClientException {
            try (Producer<byte[]> producer = producer().enableBatching(true)
                    .batchingMaxPublishDelay(500, TimeUnit.MILLISECONDS).create()) {
                for (int at = 0; at < count; at++) {
                    producer.sendAsync(bytes("" + at));
                }
                producer.flush();
            }
        }
    }

    private static PulsarClient connect(String token) throws PulsarClientException {
        return PulsarClient.builder().serviceUrl(System.getenv("PULSAR_URL")).operationTimeout(10, TimeUnit.SECONDS)
                .authentication(AuthenticationFactory.token(token)).build();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(Message<byte[]> message) {
        return new String(message.getData(), StandardCharsets.UTF_8);
    }

    private static void equal(Object left, Object right) {
        if (!String.valueOf(left).equals(String.valueOf(right))) {
            throw new AssertionError(left + ", expected " + right);
        }
    }

    /** By which error; part of the result, so that both brokers have to give the same. */
    private static String refused(Call call) throws Exception {
        try {
            call.run();
        } catch (PulsarClientException error) {
            return "refused: " + error.getClass().getSimpleName();
        }
        throw new AssertionError("it was not refused");
    }

    private static Message<byte[]> receive(Consumer<byte[]> consumer) throws PulsarClientException {
        Message<byte[]> message = consumer.receive(WAIT_MS, TimeUnit.MILLISECONDS);
        if (message == null) {
            throw new AssertionError("nothing came");
        }
        return message;
    }

    private static List<Message<byte[]>> receive(Consumer<byte[]> consumer, int count) throws PulsarClientException {
        List<Message<byte[]>> messages = new ArrayList<>();
        for (int at = 0; at < count; at++) {
            messages.add(receive(consumer));
        }
        return messages;
    }

    /** The payloads of so many messages, acknowledged. */
    private static List<String> take(Consumer<byte[]> consumer, int count) throws PulsarClientException {
        List<String> payloads = new ArrayList<>();
        for (Message<byte[]> message : receive(consumer, count)) {
            payloads.add(text(message));
            consumer.acknowledge(message);
        }
        return payloads;
    }

    private static List<String> sorted(List<String> payloads) {
        payloads.sort((left, right) -> left.length() != right.length() ? left.length() - right.length() : left.compareTo(right));
        return payloads;
    }

    private static void nothing(Consumer<byte[]> consumer) throws PulsarClientException {
        Message<byte[]> message = consumer.receive(SILENCE_MS, TimeUnit.MILLISECONDS);
        if (message != null) {
            throw new AssertionError(text(message) + " came");
        }
    }

    private static List<String> numbers(int from, int to) {
        List<String> all = new ArrayList<>();
        for (int at = from; at < to; at++) {
            all.add("" + at);
        }
        return all;
    }

    private static List<String> readAll(Reader<byte[]> reader) throws PulsarClientException {
        List<String> payloads = new ArrayList<>();
        while (reader.hasMessageAvailable()) {
            payloads.add(text(reader.readNext(WAIT_MS, TimeUnit.MILLISECONDS)));
        }
        return payloads;
    }

    private static HttpResponse<String> admin(String method, String path, String body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("PULSAR_ADMIN_URL") + "/admin/v2/" + path))
                .header("Authorization", "Bearer " + System.getenv("PULSAR_TOKEN"))
                .header("Content-Type", "application/json")
                .method(method, HttpRequest.BodyPublishers.ofString(body)).build();
        return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    }

    private static String path(String topic) {
        return topic.replace("://", "/");
    }

    private static void partitioned(Session s) throws Exception {
        equal(admin("PUT", path(s.topic) + "/partitions", "3").statusCode(), 204);
    }

    private static void add(String name, Body body) {
        addSeen(name, s -> {
            body.run(s);
            return null;
        });
    }

    private static void addSeen(String name, Check check) {
        CHECKS.put(name, check);
    }

    // --- subscriptions ---

    private static final Map<String, SubscriptionType> TYPES = Map.of(
            "exclusive", SubscriptionType.Exclusive, "failover", SubscriptionType.Failover,
            "shared", SubscriptionType.Shared, "key shared", SubscriptionType.Key_Shared);

    private static void sendKeys(Session s, int count, int distinct) throws PulsarClientException {
        Producer<byte[]> producer = s.producer().create();
        for (int at = 0; at < count; at++) {
            producer.newMessage().key("key-" + at % distinct).value(bytes("x")).send();
        }
    }

    /** The keys that come until nothing comes, acknowledged. */
    private static List<String> drain(Consumer<byte[]> consumer) throws PulsarClientException {
        List<String> keys = new ArrayList<>();
        Message<byte[]> message;
        while ((message = consumer.receive(SILENCE_MS, TimeUnit.MILLISECONDS)) != null) {
            consumer.acknowledge(message);
            keys.add(message.getKey());
        }
        return keys;
    }

    private static Consumer<byte[]> sticky(Session s, int from, int to) throws PulsarClientException {
        return s.consumer().subscriptionType(SubscriptionType.Key_Shared)
                .keySharedPolicy(KeySharedPolicy.stickyHashRange().ranges(Range.of(from, to))).subscribe();
    }

    private static void subscriptions() {
        TYPES.forEach((name, type) -> {
            add("receive " + name, s -> {
                Consumer<byte[]> consumer = s.consumer(type);
                s.send(20);
                equal(sorted(take(consumer, 20)), numbers(0, 20));
                nothing(consumer);
            });
            add("batch " + name, s -> {
                Consumer<byte[]> consumer = s.consumer(type);
                s.sendBatch(20);
                equal(take(consumer, 20), numbers(0, 20));
                nothing(consumer);
            });
        });
        addSeen("exclusive refuses a second consumer", s -> {
            s.consumer().subscribe();
            return refused(() -> s.consumer().subscribe());
        });
        addSeen("types of a subscription do not mix", s -> {
            s.consumer(SubscriptionType.Shared);
            return refused(() -> s.consumer(SubscriptionType.Failover));
        });
        add("failover goes on at the next consumer", s -> {
            Consumer<byte[]> active = s.consumer(SubscriptionType.Failover);
            Consumer<byte[]> standby = s.consumer(SubscriptionType.Failover);
            s.send(2);
            Message<byte[]> message = active.receive(3, TimeUnit.SECONDS);
            if (message == null) {
                Consumer<byte[]> other = active;
                active = standby;
                standby = other;
                message = receive(active);
            }
            active.acknowledge(message);
            active.close();
            equal(take(standby, 1), List.of("1"));
        });
        add("shared spreads over consumers", s -> {
            ConsumerBuilder<byte[]> few = s.consumer().subscriptionType(SubscriptionType.Shared).receiverQueueSize(5);
            Consumer<byte[]> first = few.clone().subscribe();
            Consumer<byte[]> second = few.clone().subscribe();
            s.send(10);
            take(first, 1);
            take(second, 1);
        });
        add("key shared keeps a key at one consumer", s -> {
            Consumer<byte[]> first = s.consumer(SubscriptionType.Key_Shared);
            Consumer<byte[]> second = s.consumer(SubscriptionType.Key_Shared);
            sendKeys(s, 40, 10);
            List<String> left = drain(first);
            List<String> right = drain(second);
            equal(left.size() + right.size(), 40);
            equal(Collections.disjoint(left, right), true);
        });
        addSeen("key shared by ranges", s -> {
            Consumer<byte[]> low = sticky(s, 0, 32767);
            Consumer<byte[]> high = sticky(s, 32768, 65535);
            sendKeys(s, 20, 20);
            List<String> left = drain(low);
            List<String> right = drain(high);
            equal(left.size() + right.size(), 20);
            return left.size() + " and " + right.size();
        });
        addSeen("key shared refuses overlapping ranges", s -> {
            sticky(s, 0, 99);
            return refused(() -> sticky(s, 50, 150));
        });
        add("a subscription keeps its position", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(3);
            equal(take(consumer, 1), List.of("0"));
            consumer.close();
            equal(take(s.consumer().subscribe(), 2), numbers(1, 3));
        });
        add("a subscription begins at the latest", s -> {
            s.send(1);
            Consumer<byte[]> consumer = s.consumer()
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Latest).subscribe();
            nothing(consumer);
            s.send(1);
            equal(take(consumer, 1), List.of("0"));
        });
        add("unsubscribe forgets the position", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(2);
            take(consumer, 2);
            consumer.unsubscribe();
            equal(take(s.consumer().subscribe(), 2), numbers(0, 2));
        });
        addSeen("unsubscribe beside another consumer is refused", s -> {
            Consumer<byte[]> first = s.consumer(SubscriptionType.Shared);
            s.consumer(SubscriptionType.Shared);
            return refused(first::unsubscribe);
        });
        add("a non-durable subscription", s -> {
            Consumer<byte[]> consumer = s.consumer().subscriptionMode(SubscriptionMode.NonDurable).subscribe();
            s.send(1);
            equal(take(consumer, 1), List.of("0"));
            consumer.close();
            s.send(1);
            nothing(s.consumer().subscriptionMode(SubscriptionMode.NonDurable)
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Latest).subscribe());
        });
        add("two subscriptions each get all", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            Consumer<byte[]> other = s.consumer().subscriptionName("other").subscribe();
            s.send(3);
            equal(take(consumer, 3), numbers(0, 3));
            equal(take(other, 3), numbers(0, 3));
        });
        add("several topics", s -> {
            List<String> topics = List.of(s.topic + "-a", s.topic + "-b");
            Consumer<byte[]> consumer = s.client.newConsumer().topics(topics).subscriptionName("s").subscribe();
            for (String topic : topics) {
                s.producer().topic(topic).create().send(bytes(topic.substring(topic.length() - 1)));
            }
            equal(sorted(take(consumer, 2)), List.of("a", "b"));
        });
        add("a pattern of topics", s -> {
            for (String name : List.of("a", "b")) {
                s.producer().topic(s.topic + "-" + name).create().send(bytes(name));
            }
            Consumer<byte[]> consumer = s.client.newConsumer().topicsPattern(Pattern.compile(s.topic + "-.*"))
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest).subscriptionName("s").subscribe();
            equal(sorted(take(consumer, 2)), List.of("a", "b"));
        });
        add("batch receive", s -> {
            Consumer<byte[]> consumer = s.consumer()
                    .batchReceivePolicy(BatchReceivePolicy.builder().maxNumMessages(3).timeout(WAIT_MS, TimeUnit.MILLISECONDS).build())
                    .subscribe();
            s.send(3);
            List<String> payloads = new ArrayList<>();
            consumer.batchReceive().forEach(message -> payloads.add(text(message)));
            equal(payloads, numbers(0, 3));
        });
        add("a queue of none", s -> {
            Consumer<byte[]> consumer = s.consumer().receiverQueueSize(0).subscribe();
            s.send(3);
            for (String expected : numbers(0, 3)) {
                Message<byte[]> message = consumer.receiveAsync().get(WAIT_MS, TimeUnit.MILLISECONDS);
                equal(text(message), expected);
                consumer.acknowledge(message);
            }
        });
        add("a listener", s -> {
            List<String> seen = Collections.synchronizedList(new ArrayList<>());
            CompletableFuture<Void> all = new CompletableFuture<>();
            s.consumer().messageListener((it, message) -> {
                seen.add(text(message));
                if (seen.size() == 3) {
                    all.complete(null);
                }
            }).subscribe();
            s.send(3);
            all.get(WAIT_MS, TimeUnit.MILLISECONDS);
            equal(seen, numbers(0, 3));
        });
    }

    // --- acknowledgments ---

    private static void acknowledgments() {
        add("cumulative acknowledgment", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(3);
            consumer.acknowledgeCumulative(receive(consumer, 3).get(1));
            consumer.close();
            equal(take(s.consumer().subscribe(), 1), List.of("2"));
        });
        add("acknowledgment within a batch", s -> {
            ConsumerBuilder<byte[]> byIndex = s.consumer().subscriptionType(SubscriptionType.Shared)
                    .enableBatchIndexAcknowledgment(true);
            Consumer<byte[]> consumer = byIndex.clone().subscribe();
            s.sendBatch(4);
            List<Message<byte[]>> messages = receive(consumer, 4);
            consumer.acknowledge(messages.get(0));
            consumer.acknowledge(messages.get(2));
            consumer.close();
            consumer = byIndex.clone().subscribe();
            equal(sorted(take(consumer, 2)), List.of("1", "3"));
            nothing(consumer);
        });
        add("an acknowledgment with a response", s -> {
            Consumer<byte[]> consumer = s.consumer().isAckReceiptEnabled(true).subscribe();
            s.send(3);
            take(consumer, 3);
        });
        add("a list of acknowledgments", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(3);
            List<MessageId> ids = new ArrayList<>();
            receive(consumer, 3).forEach(message -> ids.add(message.getMessageId()));
            consumer.acknowledge(ids.subList(0, 2));
            consumer.close();
            equal(take(s.consumer().subscribe(), 1), List.of("2"));
        });
        add("a negative acknowledgment redelivers", s -> {
            Consumer<byte[]> consumer = s.consumer().subscriptionType(SubscriptionType.Shared)
                    .negativeAckRedeliveryDelay(100, TimeUnit.MILLISECONDS).subscribe();
            s.send(1);
            for (int count = 0; count < 3; count++) {
                Message<byte[]> message = receive(consumer);
                equal(message.getRedeliveryCount(), count);
                consumer.negativeAcknowledge(message);
            }
        });
        add("what is not acknowledged in time comes again", s -> {
            Consumer<byte[]> consumer = s.consumer().subscriptionType(SubscriptionType.Shared)
                    .ackTimeout(1, TimeUnit.SECONDS).subscribe();
            s.send(1);
            receive(consumer);
            equal(take(consumer, 1), List.of("0"));
        });
        add("redeliver what is not acknowledged", s -> {
            Consumer<byte[]> consumer = s.consumer(SubscriptionType.Shared);
            s.send(3);
            receive(consumer, 3);
            consumer.redeliverUnacknowledgedMessages();
            equal(sorted(take(consumer, 3)), numbers(0, 3));
        });
        add("closing gives back what is not acknowledged", s -> {
            Consumer<byte[]> first = s.consumer(SubscriptionType.Shared);
            s.send(3);
            receive(first, 3);
            Consumer<byte[]> second = s.consumer(SubscriptionType.Shared);
            first.close();
            equal(sorted(take(second, 3)), numbers(0, 3));
        });
        add("dead letter", s -> {
            String dead = s.topic + "-dead";
            Consumer<byte[]> letters = s.consumer().topic(dead).subscriptionName("letters").subscribe();
            Consumer<byte[]> consumer = s.consumer().subscriptionType(SubscriptionType.Shared)
                    .negativeAckRedeliveryDelay(100, TimeUnit.MILLISECONDS)
                    .deadLetterPolicy(DeadLetterPolicy.builder().maxRedeliverCount(2).deadLetterTopic(dead).build()).subscribe();
            s.send(1);
            for (int count = 0; count < 3; count++) {
                consumer.negativeAcknowledge(receive(consumer));
            }
            equal(text(receive(letters)), "0");
            nothing(consumer);
        });
        add("retry letter", s -> {
            Consumer<byte[]> consumer = s.consumer().subscriptionType(SubscriptionType.Shared).enableRetry(true)
                    .deadLetterPolicy(DeadLetterPolicy.builder().maxRedeliverCount(5).build()).subscribe();
            s.send(1);
            consumer.reconsumeLater(receive(consumer), 300, TimeUnit.MILLISECONDS);
            Message<byte[]> message = receive(consumer);
            equal(text(message), "0");
            equal(message.getProperty("RECONSUMETIMES"), "1");
        });
    }

    // --- messages ---

    private static Message<byte[]> roundTrip(Session s, UnaryOperator<TypedMessageBuilder<byte[]>> change) throws Exception {
        Consumer<byte[]> consumer = s.consumer().subscribe();
        change.apply(s.producer().create().newMessage().value(bytes("x"))).send();
        return receive(consumer);
    }

    private static Body delayed(UnaryOperator<TypedMessageBuilder<byte[]>> change) {
        return s -> {
            Consumer<byte[]> consumer = s.consumer(SubscriptionType.Shared);
            long started = System.nanoTime();
            Producer<byte[]> producer = s.producer().create();
            change.apply(producer.newMessage().value(bytes("late"))).send();
            producer.send(bytes("now"));
            equal(take(consumer, 2), List.of("now", "late"));
            equal(System.nanoTime() - started > 1_300_000_000L, true);
        };
    }

    private static byte[] key(String name) {
        try {
            return Files.readAllBytes(Path.of(System.getenv("CONFORMANCE_KEYS"), name));
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    private static final class Keys implements CryptoKeyReader {
        @Override
        public EncryptionKeyInfo getPublicKey(String name, Map<String, String> metadata) {
            return new EncryptionKeyInfo(key("first.public.pem"), metadata);
        }

        @Override
        public EncryptionKeyInfo getPrivateKey(String name, Map<String, String> metadata) {
            return new EncryptionKeyInfo(key("first.pkcs1.pem"), metadata);
        }
    }

    private static void messages() {
        for (CompressionType codec : CompressionType.values()) {
            for (boolean batching : new boolean[] {false, true}) {
                add("codec " + codec.name().toLowerCase() + (batching ? " in a batch" : ""), s -> {
                    Consumer<byte[]> consumer = s.consumer().subscribe();
                    Producer<byte[]> producer = s.producer().compressionType(codec).enableBatching(batching).create();
                    List<byte[]> payloads = new ArrayList<>();
                    for (byte at = 0; at < 3; at++) {
                        byte[] payload = new byte[10_000];
                        Arrays.fill(payload, at);
                        payloads.add(payload);
                        producer.sendAsync(payload);
                    }
                    producer.flush();
                    for (byte[] payload : payloads) {
                        equal(Arrays.equals(receive(consumer).getData(), payload), true);
                    }
                });
            }
        }
        add("key", s -> equal(roundTrip(s, message -> message.key("k\u00e9y")).getKey(), "k\u00e9y"));
        add("key of bytes", s -> equal(roundTrip(s, message -> message.keyBytes(new byte[] {0, -1})).getKeyBytes()[1], -1));
        add("ordering key", s -> equal(
                new String(roundTrip(s, message -> message.orderingKey(bytes("order"))).getOrderingKey()), "order"));
        add("properties", s -> {
            Map<String, String> properties = Map.of("a", "1", "b", "", "c", "\u00fc");
            equal(roundTrip(s, message -> message.properties(properties)).getProperties().equals(properties), true);
        });
        add("event time", s -> equal(roundTrip(s, message -> message.eventTime(1_600_000_000_123L)).getEventTime(), 1_600_000_000_123L));
        add("publish time", s -> equal(
                Math.abs(roundTrip(s, message -> message).getPublishTime() - System.currentTimeMillis()) < 60_000, true));
        add("a sequence id", s -> equal(roundTrip(s, message -> message.sequenceId(77)).getSequenceId(), 77));
        add("an empty payload", s -> equal(roundTrip(s, message -> message.value(new byte[0])).getData().length, 0));
        add("a null value", s -> equal(roundTrip(s, message -> message.value(null)).getValue(), null));
        add("delayed by a time span", delayed(message -> message.deliverAfter(1500, TimeUnit.MILLISECONDS)));
        add("delayed to a moment", delayed(message -> message.deliverAt(System.currentTimeMillis() + 1500)));
        add("a delay does not count on exclusive",
                s -> equal(text(roundTrip(s, message -> message.deliverAfter(1, TimeUnit.MINUTES))), "x"));
        add("a thousand in order", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.sendBatch(1000);
            equal(take(consumer, 1000), numbers(0, 1000));
        });
        add("chunks", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            byte[] payload = new byte[BIG_BYTES];
            new Random().nextBytes(payload);
            s.producer().enableChunking(true).create().send(payload);
            equal(Arrays.equals(receive(consumer).getData(), payload), true);
        });
        addSeen("too big", s -> {
            Producer<byte[]> producer = s.producer().create();
            return refused(() -> producer.send(new byte[BIG_BYTES]));
        });
        add("encryption", s -> {
            Consumer<byte[]> consumer = s.consumer().cryptoKeyReader(new Keys()).subscribe();
            s.producer().addEncryptionKey("first").cryptoKeyReader(new Keys()).create().send(bytes("secret"));
            equal(take(consumer, 1), List.of("secret"));
        });
        add("non-persistent", s -> {
            s.topic = s.topic.replaceFirst("persistent", "non-persistent");
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.producer().create().send(bytes("x"));
            equal(take(consumer, 1), List.of("x"));
        });
        add("statistics show the backlog", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(3);
            receive(consumer);
            JsonObject stats = JsonParser.parseString(admin("GET", path(s.topic) + "/stats", "").body()).getAsJsonObject();
            equal(stats.getAsJsonObject("subscriptions").getAsJsonObject("s").get("msgBacklog"), 3);
        });
    }

    // --- producers ---

    private static ProducerBuilder<byte[]> producer(Session s, ProducerAccessMode mode) {
        return s.producer().accessMode(mode);
    }

    private static void producers() {
        add("a producer's name", s -> equal(s.producer().producerName("someone").create().getProducerName(), "someone"));
        addSeen("a name is taken", s -> {
            s.producer().producerName("someone").create();
            return refused(() -> s.producer().producerName("someone").create());
        });
        add("sequence ids count from 0", s -> {
            Producer<byte[]> producer = s.producer().create();
            equal(producer.getLastSequenceId(), -1);
            producer.send(bytes("x"));
            producer.send(bytes("x"));
            equal(producer.getLastSequenceId(), 1);
        });
        add("sequence ids go on", s -> {
            Producer<byte[]> producer = s.producer().initialSequenceId(10).create();
            producer.send(bytes("x"));
            equal(producer.getLastSequenceId(), 11);
        });
        addSeen("an exclusive producer is alone", s -> {
            producer(s, ProducerAccessMode.Exclusive).create();
            return refused(() -> s.producer().create());
        });
        addSeen("exclusive beside others is refused", s -> {
            s.producer().create();
            return refused(() -> producer(s, ProducerAccessMode.Exclusive).create());
        });
        add("an exclusive producer is waited for", s -> {
            Producer<byte[]> first = producer(s, ProducerAccessMode.Exclusive).create();
            CompletableFuture<Producer<byte[]>> waiting = producer(s, ProducerAccessMode.WaitForExclusive).createAsync();
            Thread.sleep(SILENCE_MS);
            equal(waiting.isDone(), false);
            first.close();
            waiting.get(WAIT_MS, TimeUnit.MILLISECONDS).send(bytes("x"));
        });
        addSeen("fencing ends the former producer", s -> {
            Producer<byte[]> first = producer(s, ProducerAccessMode.Exclusive).create();
            producer(s, ProducerAccessMode.ExclusiveWithFencing).create().send(bytes("x"));
            return refused(() -> first.send(bytes("y")));
        });
        add("deduplication drops a repeated sequence id", s -> {
            s.topic = s.topic.replace("public/default", "public/dedup");
            Consumer<byte[]> consumer = s.consumer().subscribe();
            Producer<byte[]> producer = s.producer().producerName("p").create();
            for (int id : new int[] {1, 2, 2, 1, 3}) {
                producer.newMessage().sequenceId(id).value(bytes("" + id)).send();
            }
            equal(take(consumer, 3), numbers(1, 4));
            nothing(consumer);
        });
        add("deduplication knows the last sequence id", s -> {
            s.topic = s.topic.replace("public/default", "public/dedup");
            Producer<byte[]> producer = s.producer().producerName("p").create();
            producer.newMessage().sequenceId(7).value(bytes("x")).send();
            producer.close();
            equal(s.producer().producerName("p").create().getLastSequenceId(), 7);
        });
        addSeen("a terminated topic takes no more", s -> {
            Producer<byte[]> producer = s.producer().create();
            producer.send(bytes("x"));
            equal(admin("POST", path(s.topic) + "/terminate", "").statusCode(), 200);
            return refused(() -> producer.send(bytes("y")));
        });
        add("a reader sees the end of a terminated topic", s -> {
            s.send(1);
            Reader<byte[]> reader = s.reader(MessageId.earliest);
            equal(readAll(reader), numbers(0, 1));
            equal(admin("POST", path(s.topic) + "/terminate", "").statusCode(), 200);
            for (int tries = 0; !reader.hasReachedEndOfTopic(); tries++) {
                equal(tries < 100, true);
                Thread.sleep(50);
            }
        });
        add("a producer goes on after an unload", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            Producer<byte[]> producer = s.producer().create();
            producer.send(bytes("0"));
            equal(admin("PUT", path(s.topic) + "/unload", "").statusCode() / 100, 2);
            producer.send(bytes("1"));
            // What was not acknowledged before the unload may come twice.
            while (!take(consumer, 1).equals(List.of("1"))) {
                Thread.onSpinWait();
            }
        });
        add("partitions are listed", s -> {
            partitioned(s);
            equal(s.client.getPartitionsForTopic(s.topic).get(),
                    List.of(s.topic + "-partition-0", s.topic + "-partition-1", s.topic + "-partition-2"));
        });
        add("partitions are all used", s -> {
            partitioned(s);
            Consumer<byte[]> consumer = s.consumer().subscribe();
            Set<Integer> seen = new HashSet<>();
            for (MessageId id : s.send(30)) {
                seen.add(((MessageIdAdv) id).getPartitionIndex());
            }
            equal(seen.size(), 3);
            equal(sorted(take(consumer, 30)), numbers(0, 30));
        });
        add("a key has one partition", s -> {
            partitioned(s);
            Producer<byte[]> producer = s.producer().create();
            Set<Integer> seen = new HashSet<>();
            for (int at = 0; at < 9; at++) {
                seen.add(((MessageIdAdv) producer.newMessage().key("k").value(bytes("x")).send()).getPartitionIndex());
            }
            equal(seen.size(), 1);
        });
        add("one partition is a topic", s -> {
            partitioned(s);
            s.topic += "-partition-1";
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(1);
            equal(take(consumer, 1), List.of("0"));
        });
        add("partitions that exist are not made again", s -> {
            partitioned(s);
            equal(admin("PUT", path(s.topic) + "/partitions", "3").statusCode(), 409);
        });
    }

    // --- positions ---

    private static void positions() {
        add("seek to the earliest", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(3);
            take(consumer, 3);
            consumer.seek(MessageId.earliest);
            equal(take(consumer, 3), numbers(0, 3));
        });
        add("seek to the latest", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(3);
            consumer.seek(MessageId.latest);
            nothing(consumer);
        });
        add("seek to an id", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            List<MessageId> ids = s.send(3);
            take(consumer, 3);
            consumer.seek(ids.get(0));
            equal(take(consumer, 2), numbers(1, 3));
        });
        add("seek to an id, inclusive", s -> {
            Consumer<byte[]> consumer = s.consumer().startMessageIdInclusive().subscribe();
            List<MessageId> ids = s.send(3);
            take(consumer, 3);
            consumer.seek(ids.get(1));
            equal(take(consumer, 2), numbers(1, 3));
        });
        add("seek to a time", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.send(1);
            Thread.sleep(300);
            long between = System.currentTimeMillis();
            Thread.sleep(300);
            s.send(2);
            take(consumer, 3);
            consumer.seek(between);
            equal(take(consumer, 2), numbers(0, 2));
        });
        add("the last id", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            List<MessageId> ids = s.send(3);
            equal(consumer.getLastMessageIds().get(0).compareTo(ids.get(2)), 0);
        });
        addSeen("the last id of an empty topic",
                s -> "" + ((MessageIdAdv) s.consumer().subscribe().getLastMessageIds().get(0)).getEntryId());
        add("an id in bytes", s -> {
            MessageId id = s.send(2).get(0);
            equal(readAll(s.reader(MessageId.fromByteArray(id.toByteArray()))), List.of("1"));
        });
        add("reader from the earliest", s -> {
            s.send(3);
            equal(readAll(s.reader(MessageId.earliest)), numbers(0, 3));
        });
        add("reader from the latest", s -> {
            s.send(2);
            Reader<byte[]> reader = s.reader(MessageId.latest);
            equal(readAll(reader), List.of());
            s.send(1);
            equal(readAll(reader), numbers(0, 1));
        });
        add("reader behind an id", s -> equal(readAll(s.reader(s.send(3).get(1))), List.of("2")));
        add("reader at an id", s -> {
            MessageId id = s.send(3).get(1);
            equal(readAll(s.client.newReader().topic(s.topic).startMessageId(id).startMessageIdInclusive().create()), numbers(1, 3));
        });
        add("reader from a time back", s -> {
            s.send(2);
            equal(readAll(s.client.newReader().topic(s.topic).startMessageFromRollbackDuration(1, TimeUnit.HOURS).create()),
                    numbers(0, 2));
        });
        add("reader of batches", s -> {
            s.sendBatch(3);
            equal(readAll(s.reader(MessageId.earliest)), numbers(0, 3));
        });
        add("reader of an empty topic", s -> equal(readAll(s.reader(MessageId.earliest)), List.of()));
        add("reader seeks a time", s -> {
            s.send(1);
            Reader<byte[]> reader = s.reader(MessageId.earliest);
            equal(readAll(reader), numbers(0, 1));
            reader.seek(System.currentTimeMillis() - 60_000);
            equal(readAll(reader), numbers(0, 1));
        });
        add("table view", s -> {
            Producer<byte[]> producer = s.producer().create();
            for (String pair : List.of("a1", "b2", "a3")) {
                producer.newMessage().key(pair.substring(0, 1)).value(bytes(pair.substring(1))).send();
            }
            TableView<byte[]> view = s.client.newTableView().topic(s.topic).create();
            equal(new String(view.get("a")) + new String(view.get("b")) + view.get("c"), "32null");
            producer.newMessage().key("c").value(bytes("4")).send();
            for (int tries = 0; view.get("c") == null; tries++) {
                equal(tries < 100, true);
                Thread.sleep(50);
            }
        });
    }

    // --- schemas, rights and names ---

    private static <T> Body typed(Schema<T> schema, T value) {
        return s -> {
            Consumer<T> consumer = s.client.newConsumer(schema).topic(s.topic).subscriptionName("s").subscribe();
            s.client.newProducer(schema).topic(s.topic).create().send(value);
            equal(consumer.receive(WAIT_MS, TimeUnit.MILLISECONDS).getValue(), value);
        };
    }

    private static Body ordered(Schema<Order> schema) {
        return s -> {
            Consumer<Order> consumer = s.client.newConsumer(schema).topic(s.topic).subscriptionName("s").subscribe();
            Order order = new Order();
            order.item = "tea";
            order.count = 2;
            s.client.newProducer(schema).topic(s.topic).create().send(order);
            Order received = consumer.receive(WAIT_MS, TimeUnit.MILLISECONDS).getValue();
            equal(received.item + received.count, "tea2");
        };
    }

    private static Check refusedToken(String token) {
        return s -> {
            try (PulsarClient client = connect(token)) {
                return refused(() -> client.newProducer().topic(s.topic).create());
            }
        };
    }

    private static void schemas() {
        Schema<Order> json = Schema.JSON(Order.class);
        add("schema string", typed(Schema.STRING, "t\u00e9a"));
        add("schema int32", typed(Schema.INT32, -7));
        add("schema int64", typed(Schema.INT64, -7_000_000_000L));
        add("schema double", typed(Schema.DOUBLE, 2.5));
        add("schema boolean", typed(Schema.BOOL, true));
        add("schema json", ordered(json));
        add("schema avro", ordered(Schema.AVRO(Order.class)));
        addSeen("schema json is registered", s -> {
            s.client.newProducer(json).topic(s.topic).create();
            HttpResponse<String> answer = admin("GET", "schemas/" + s.topic.replace("persistent://", "") + "/schema", "");
            return answer.statusCode() + " " + JsonParser.parseString(answer.body()).getAsJsonObject().get("type").getAsString();
        });
        add("a schema by itself", s -> {
            s.client.newProducer(json).topic(s.topic).create().close();
            var consumer = s.client.newConsumer(Schema.AUTO_CONSUME()).topic(s.topic).subscriptionName("s").subscribe();
            Order order = new Order();
            order.item = "tea";
            s.client.newProducer(json).topic(s.topic).create().send(order);
            equal(consumer.receive(WAIT_MS, TimeUnit.MILLISECONDS).getValue().getField("item"), "tea");
        });
        addSeen("another schema is refused", s -> {
            s.client.newProducer(json).topic(s.topic).create();
            return refused(() -> s.client.newProducer(Schema.JSON(Other.class)).topic(s.topic).create());
        });
        addSeen("another type of schema is refused", s -> {
            s.client.newProducer(json).topic(s.topic).create();
            return refused(() -> s.client.newProducer(Schema.STRING).topic(s.topic).create());
        });
        addSeen("a consumer's other schema is refused", s -> {
            s.client.newProducer(json).topic(s.topic).create();
            return refused(() -> s.client.newConsumer(Schema.JSON(Other.class)).topic(s.topic).subscriptionName("s").subscribe());
        });
        add("bytes of a topic with a schema", s -> {
            Consumer<byte[]> consumer = s.consumer().subscribe();
            s.client.newProducer(Schema.STRING).topic(s.topic).create().send("tea");
            equal(take(consumer, 1), List.of("tea"));
        });
        String token = String.valueOf(System.getenv("PULSAR_TOKEN"));
        addSeen("a wrong token is refused", refusedToken(token.substring(0, Math.max(0, token.length() - 8)) + "AAAAAAAA"));
        addSeen("an expired token is refused", refusedToken(String.valueOf(System.getenv("PULSAR_EXPIRED_TOKEN"))));
        addSeen("a role without rights is refused", refusedToken(String.valueOf(System.getenv("PULSAR_NOBODY_TOKEN"))));
        addSeen("a missing namespace is refused",
                s -> refused(() -> s.producer().topic("persistent://public/missing/topic").create()));
        addSeen("a missing topic is refused",
                s -> refused(() -> s.producer().topic(s.topic.replace("public/default", "public/strict")).create()));
        addSeen("a missing topic is refused to consumers",
                s -> refused(() -> s.consumer().topic(s.topic.replace("public/default", "public/strict")).subscribe()));
        add("a deleted topic is gone", s -> {
            s.send(1);
            equal(admin("DELETE", path(s.topic), "").statusCode(), 204);
            equal(readAll(s.reader(MessageId.earliest)), List.of());
        });
    }

    // --- running ---

    private static String run(Check check) {
        try {
            Session session = new Session();
            try {
                String seen = check.run(session);
                return seen == null ? "ok" : "ok (" + seen + ")";
            } finally {
                session.client.closeAsync();
            }
        } catch (Throwable error) {
            String text = error.toString().replace('\n', ' ');
            return "FAILED: " + text.substring(0, Math.min(text.length(), 160));
        }
    }

    private static String within(Future<String> result) throws Exception {
        try {
            return result.get(CHECK_SECONDS_MAX, TimeUnit.SECONDS);
        } catch (TimeoutException error) {
            return "FAILED: it did not end";
        }
    }

    public static void main(String[] names) throws Exception {
        subscriptions();
        acknowledgments();
        messages();
        producers();
        positions();
        schemas();
        if (names.length == 0) {
            CHECKS.keySet().forEach(System.out::println);
            return;
        }
        ExecutorService pool = Executors.newFixedThreadPool(AT_ONCE_MAX);
        Map<String, Future<String>> results = new LinkedHashMap<>();
        for (String name : names) {
            results.put(name, pool.submit(() -> run(CHECKS.get(name))));
        }
        for (Map.Entry<String, Future<String>> result : results.entrySet()) {
            System.out.println(result.getKey() + "\t" + within(result.getValue()));
        }
        System.exit(0);
    }
}
