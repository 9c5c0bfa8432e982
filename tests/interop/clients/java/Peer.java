import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonElement;
import com.google.gson.JsonArray;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import org.apache.pulsar.client.api.*;
import org.apache.pulsar.client.impl.MessageImpl;

/** The official Java client behind the line protocol of ../README.md. */
public class Peer {
    private static final HexFormat HEX = HexFormat.of();
    /** The producers of "send_keys", by topic. */
    private static final Map<String, Producer<byte[]>> SENDING = new HashMap<>();
    /** The consumers of "give_up", by topic and subscription, and of "read_pattern", by pattern. */
    private static final Map<String, Consumer<byte[]>> GIVING_UP = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        PulsarClient client = connect(() -> System.getenv("PULSAR_TOKEN"));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonObject request = new Gson().fromJson(line, JsonObject.class);
            JsonObject answer;
            try {
                answer = switch (request.get("do").getAsString()) {
                    case "info" -> info();
                    case "produce" -> produce(client, request);
                    case "echo" -> echo(request);
                    case "give_up" -> giveUp(client, request);
                    case "send_keys" -> sendKeys(client, request);
                    case "read_pattern" -> readPattern(client, request);
                    case "read_ids" -> readIds(client, request);
                    case "read_behind" -> readBehind(client, request);
                    case "read_table" -> readTable(client, request);
                    case "release" -> release();
                    default -> consume(client, request);
                };
            } catch (Exception error) {
                answer = new JsonObject();
                answer.addProperty("error", error.toString());
            }
            System.out.println(answer);
            System.out.flush();
        }
        client.close();
    }

    private static PulsarClient connect(Supplier<String> token) throws Exception {
        return PulsarClient.builder()
                .serviceUrl(System.getenv("PULSAR_URL"))
                .authentication(AuthenticationFactory.token(token))
                .build();
    }

    private static JsonObject info() {
        JsonObject answer = new JsonObject();
        answer.addProperty("client", "Java");
        answer.addProperty("version", org.apache.pulsar.PulsarVersion.getVersion());
        answer.add("lacks", new JsonArray());
        return answer;
    }

    private static JsonObject produce(PulsarClient client, JsonObject request) throws Exception {
        boolean murmur = request.get("hashing").getAsString().equals("murmur3");
        ProducerBuilder<byte[]> options = client.newProducer();
        JsonObject keys = keys(request);
        if (keys != null) {
            options.addEncryptionKey(keys.get("name").getAsString()).cryptoKeyReader(new Keys(keys));
        }
        Producer<byte[]> producer = options
                .topic(request.get("topic").getAsString())
                .enableBatching(request.get("batching").getAsBoolean())
                .enableChunking(request.get("chunking").getAsBoolean())
                .batchingMaxPublishDelay(20, TimeUnit.MILLISECONDS)
                .batcherBuilder(request.get("by_key").getAsBoolean() ? BatcherBuilder.KEY_BASED : BatcherBuilder.DEFAULT)
                .compressionType(CompressionType.valueOf(request.get("compression").getAsString()))
                .hashingScheme(murmur ? HashingScheme.Murmur3_32Hash : HashingScheme.JavaStringHash)
                .blockIfQueueFull(true)
                .create();
        List<CompletableFuture<MessageId>> sends = new ArrayList<>();
        for (JsonElement element : request.getAsJsonArray("messages")) {
            JsonObject message = element.getAsJsonObject();
            TypedMessageBuilder<byte[]> builder = producer.newMessage();
            builder.value(message.get("payload").isJsonNull() ? null : bytes(message, "payload"));
            if (message.has("key")) {
                builder.key(message.get("key").getAsString());
            }
            if (message.has("key_bytes")) {
                builder.keyBytes(bytes(message, "key_bytes"));
            }
            if (message.has("ordering_key")) {
                builder.orderingKey(bytes(message, "ordering_key"));
            }
            if (message.has("event_time")) {
                builder.eventTime(message.get("event_time").getAsLong());
            }
            if (message.has("properties")) {
                message.getAsJsonObject("properties").entrySet()
                        .forEach(pair -> builder.property(pair.getKey(), pair.getValue().getAsString()));
            }
            if (message.has("replicate_to")) {
                List<String> clusters = new ArrayList<>();
                message.getAsJsonArray("replicate_to").forEach(name -> clusters.add(name.getAsString()));
                if (clusters.equals(List.of("__local__"))) {
                    builder.disableReplication();
                } else {
                    builder.replicationClusters(clusters);
                }
            }
            sends.add(builder.sendAsync());
        }
        JsonArray ids = new JsonArray();
        for (CompletableFuture<MessageId> send : sends) {
            ids.add(id(send.get(30, TimeUnit.SECONDS)));
        }
        producer.close();
        JsonObject answer = new JsonObject();
        answer.add("ids", ids);
        return answer;
    }

    private static JsonObject echo(JsonObject request) throws Exception {
        Path file = Path.of(request.get("token_file").getAsString());
        AtomicInteger tokens = new AtomicInteger();
        Supplier<String> token = () -> {
            tokens.incrementAndGet();
            try {
                return Files.readString(file);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        try (PulsarClient client = connect(token)) {
            Producer<byte[]> producer = client.newProducer().topic(request.get("to").getAsString()).create();
            Consumer<byte[]> consumer = subscribe(client, request.get("from").getAsString(), "theirs", null);
            for (String text = ""; !text.equals("end");) {
                Message<byte[]> message = received(consumer);
                text = new String(message.getValue(), StandardCharsets.UTF_8);
                producer.send(message.getValue());
                consumer.acknowledge(message);
            }
        }
        JsonObject answer = new JsonObject();
        answer.addProperty("tokens", tokens.get());
        return answer;
    }

    private static JsonObject consume(PulsarClient client, JsonObject request) throws Exception {
        Consumer<byte[]> consumer = subscribe(client, request.get("topic").getAsString(),
                request.get("subscription").getAsString(), keys(request));
        JsonArray messages = new JsonArray();
        for (int left = request.get("count").getAsInt(); left > 0; left--) {
            Message<byte[]> message = received(consumer);
            messages.add(described(message));
            consumer.acknowledge(message);
        }
        consumer.close();
        JsonObject answer = new JsonObject();
        answer.add("messages", messages);
        return answer;
    }

    private static JsonObject giveUp(PulsarClient client, JsonObject request) throws Exception {
        String topic = request.get("topic").getAsString();
        String subscription = request.get("subscription").getAsString();
        long delay = request.get("delay_ms").getAsLong();
        String place = topic + " " + subscription;
        if (!GIVING_UP.containsKey(place)) {
            GIVING_UP.put(place, client.newConsumer()
                    .topic(topic)
                    .subscriptionName(subscription)
                    .subscriptionType(SubscriptionType.valueOf(request.get("type").getAsString()))
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                    .negativeAckRedeliveryDelay(delay, TimeUnit.MILLISECONDS)
                    .enableRetry(request.get("retry").getAsBoolean())
                    .deadLetterPolicy(DeadLetterPolicy.builder()
                            .maxRedeliverCount(request.get("max").getAsInt())
                            .build())
                    .subscribe());
        }
        Consumer<byte[]> consumer = GIVING_UP.get(place);
        JsonArray messages = new JsonArray();
        for (int left = request.get("count").getAsInt(); left > 0; left--) {
            Message<byte[]> message = received(consumer);
            messages.add(described(message));
            if (request.get("then").getAsString().equals("nack")) {
                consumer.negativeAcknowledge(message);
            } else {
                consumer.reconsumeLater(message, delay, TimeUnit.MILLISECONDS);
            }
        }
        JsonObject answer = new JsonObject();
        answer.add("messages", messages);
        return answer;
    }

    private static JsonObject sendKeys(PulsarClient client, JsonObject request) throws Exception {
        String topic = request.get("topic").getAsString();
        if (!SENDING.containsKey(topic)) {
            SENDING.put(topic, client.newProducer()
                    .topic(topic)
                    .enableBatching(false)
                    .autoUpdatePartitionsInterval(1, TimeUnit.SECONDS)
                    .create());
        }
        JsonArray ids = new JsonArray();
        for (JsonElement key : request.getAsJsonArray("keys")) {
            ids.add(id(SENDING.get(topic).newMessage().key(key.getAsString()).value(new byte[] {1}).send()));
        }
        JsonObject answer = new JsonObject();
        answer.add("ids", ids);
        return answer;
    }

    private static JsonObject readPattern(PulsarClient client, JsonObject request) throws Exception {
        String pattern = request.get("pattern").getAsString();
        if (!GIVING_UP.containsKey(pattern)) {
            GIVING_UP.put(pattern, client.newConsumer()
                    .topicsPattern(pattern)
                    .subscriptionName("theirs")
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                    .patternAutoDiscoveryPeriod(1, TimeUnit.SECONDS)
                    .subscribe());
        }
        JsonArray topics = new JsonArray();
        for (int left = request.get("count").getAsInt(); left > 0; left--) {
            Message<byte[]> message = received(GIVING_UP.get(pattern));
            topics.add(message.getTopicName());
            GIVING_UP.get(pattern).acknowledge(message);
        }
        JsonObject answer = new JsonObject();
        answer.add("topics", topics);
        return answer;
    }

    private static JsonObject readIds(PulsarClient client, JsonObject request) throws Exception {
        JsonArray messages = new JsonArray();
        try (Reader<byte[]> reader = client.newReader()
                .topic(request.get("topic").getAsString())
                .startMessageId(MessageId.earliest)
                .create()) {
            for (int left = request.get("count").getAsInt(); left > 0; left--) {
                Message<byte[]> message = next(reader);
                JsonObject read = new JsonObject();
                read.addProperty("payload", start(message, request));
                read.addProperty("id_bytes", HEX.formatHex(message.getMessageId().toByteArray()));
                messages.add(read);
            }
        }
        JsonObject answer = new JsonObject();
        answer.add("messages", messages);
        return answer;
    }

    private static JsonObject readBehind(PulsarClient client, JsonObject request) throws Exception {
        JsonArray found = new JsonArray();
        for (JsonElement element : request.getAsJsonArray("places")) {
            JsonObject place = element.getAsJsonObject();
            String topic = place.get("topic").getAsString();
            MessageId id = MessageId.fromByteArray(bytes(place, "id_bytes"));
            JsonArray payloads = new JsonArray();
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(id).create()) {
                payloads.add(start(next(reader), request));
            }
            payloads.add(sought(client, topic, id, request));
            if (!place.get("parent").isJsonNull()) {
                String parent = place.get("parent").getAsString();
                MessageId withTopic = MessageId.fromByteArrayWithTopic(bytes(place, "id_bytes"), parent);
                payloads.add(sought(client, parent, withTopic, request));
                payloads.add(sought(client, parent, TopicMessageId.create(topic, id), request));
            }
            JsonObject behind = new JsonObject();
            behind.add("payloads", payloads);
            behind.addProperty("id_bytes", HEX.formatHex(id.toByteArray()));
            found.add(behind);
        }
        JsonObject answer = new JsonObject();
        answer.add("found", found);
        return answer;
    }

    private static JsonObject readTable(PulsarClient client, JsonObject request) throws Exception {
        JsonObject entries = new JsonObject();
        try (TableView<byte[]> view =
                client.newTableView(Schema.BYTES).topic(request.get("topic").getAsString()).create()) {
            view.forEach((key, value) -> entries.addProperty(key, HEX.formatHex(value)));
        }
        JsonObject answer = new JsonObject();
        answer.add("entries", entries);
        return answer;
    }

    /** What a consumer receives that has gone to the id. */
    private static String sought(PulsarClient client, String topic, MessageId id, JsonObject request)
            throws Exception {
        try (Consumer<byte[]> consumer =
                client.newConsumer().topic(topic).subscriptionName("behind").subscribe()) {
            consumer.seek(id);
            return start(received(consumer), request);
        }
    }

    private static Message<byte[]> next(Reader<byte[]> reader) throws Exception {
        Message<byte[]> message = reader.readNext(30, TimeUnit.SECONDS);
        if (message == null) {
            throw new IllegalStateException("no message within 30 s");
        }
        return message;
    }

    /** The first bytes of the payload, as text. */
    private static String start(Message<byte[]> message, JsonObject request) {
        byte[] payload = message.getData();
        int length = Math.min(payload.length, request.get("bytes").getAsInt());
        return new String(payload, 0, length, StandardCharsets.UTF_8);
    }

    private static JsonObject release() throws Exception {
        for (Producer<byte[]> producer : SENDING.values()) {
            producer.close();
        }
        SENDING.clear();
        for (Consumer<byte[]> consumer : GIVING_UP.values()) {
            consumer.close();
        }
        GIVING_UP.clear();
        return new JsonObject();
    }

    /** The keys of a request, if what it is about is encrypted. */
    private static JsonObject keys(JsonObject request) {
        return request.has("keys") && request.get("keys").isJsonObject() ? request.getAsJsonObject("keys") : null;
    }

    /** Reads the two files of a key. */
    private record Keys(JsonObject files) implements CryptoKeyReader {
        @Override
        public EncryptionKeyInfo getPublicKey(String name, Map<String, String> metadata) {
            return read("public", metadata);
        }

        @Override
        public EncryptionKeyInfo getPrivateKey(String name, Map<String, String> metadata) {
            return read("private", metadata);
        }

        private EncryptionKeyInfo read(String which, Map<String, String> metadata) {
            try {
                return new EncryptionKeyInfo(Files.readAllBytes(Path.of(files.get(which).getAsString())), metadata);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    private static Consumer<byte[]> subscribe(PulsarClient client, String topic, String name, JsonObject keys)
            throws Exception {
        ConsumerBuilder<byte[]> options = client.newConsumer();
        if (keys != null) {
            options.cryptoKeyReader(new Keys(keys));
        }
        return options
                .topic(topic)
                .subscriptionName(name)
                .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                .subscribe();
    }

    private static Message<byte[]> received(Consumer<byte[]> consumer) throws Exception {
        Message<byte[]> message = consumer.receive(30, TimeUnit.SECONDS);
        if (message == null) {
            throw new IllegalStateException("no message within 30 s");
        }
        return message;
    }

    private static JsonObject described(Message<byte[]> message) {
        JsonObject received = new JsonObject();
        byte[] value = message.getValue();
        received.addProperty("payload", value == null ? null : HEX.formatHex(value));
        if (message.hasKey() && message.hasBase64EncodedKey()) {
            received.addProperty("key_bytes", HEX.formatHex(message.getKeyBytes()));
        } else if (message.hasKey()) {
            received.addProperty("key", message.getKey());
        }
        if (message.hasOrderingKey()) {
            received.addProperty("ordering_key", HEX.formatHex(message.getOrderingKey()));
        }
        if (message.getEventTime() != 0) {
            received.addProperty("event_time", message.getEventTime());
        }
        JsonObject properties = new JsonObject();
        message.getProperties().forEach(properties::addProperty);
        received.add("properties", properties);
        if (message.isReplicated()) {
            received.addProperty("replicated_from", message.getReplicatedFrom());
        }
        JsonArray clusters = new JsonArray();
        // No method of the interface tells them.
        if (message instanceof MessageImpl<byte[]> one) {
            one.getReplicateTo().forEach(clusters::add);
        }
        received.add("replicate_to", clusters);
        received.addProperty("id", id(message.getMessageId()));
        return received;
    }

    private static byte[] bytes(JsonObject message, String name) {
        return HEX.parseHex(message.get(name).getAsString());
    }

    private static String id(MessageId id) {
        MessageIdAdv position = (MessageIdAdv) id;
        return position.getLedgerId() + ":" + position.getEntryId() + ":" + position.getPartitionIndex() + ":"
                + position.getBatchIndex();
    }
}
