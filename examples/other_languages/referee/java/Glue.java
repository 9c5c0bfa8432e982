import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.*;

/** The official Java client behind the line protocol of `pulsar-native referee`. */
public class Glue {
    private static final Map<String, SubscriptionType> TYPES = Map.of(
            "exclusive", SubscriptionType.Exclusive, "shared", SubscriptionType.Shared,
            "failover", SubscriptionType.Failover, "key_shared", SubscriptionType.Key_Shared);

    private static PulsarClient client;
    private static final Map<String, Producer<byte[]>> PRODUCERS = new HashMap<>();
    private static final Map<String, Consumer<byte[]>> CONSUMERS = new HashMap<>();
    private static final List<Message<byte[]>> MESSAGES = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        say("ready pulsar-client-java " + PulsarClient.class.getPackage().getImplementationVersion());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            try {
                say(answer(line.split(" ", -1)));
            } catch (UnsupportedOperationException unsupported) {
                say("unsupported " + unsupported.getMessage());
            } catch (Exception error) {
                say("error " + error);
            }
            if (line.equals("exit")) {
                System.exit(0);
            }
        }
    }

    private static synchronized void say(String line) {
        System.out.println(line.replace('\n', ' '));
        System.out.flush();
    }

    private static String answer(String[] words) throws Exception {
        switch (words[0]) {
            case "connect" -> connect(words[1], rest(words, 2));
            case "producer" -> produce(words[1], words[2], rest(words, 3));
            case "subscribe" -> subscribe(words[1], words[2], words[3], words[4], rest(words, 5));
            case "send" -> send(PRODUCERS.get(words[1]), words[2], String.join(" ", rest(words, 3)));
            case "receive" -> {
                return receive(CONSUMERS.get(words[1]), Integer.parseInt(words[2]));
            }
            case "ack" -> CONSUMERS.get(words[1]).acknowledge(received(words));
            case "ack_cumulative" -> CONSUMERS.get(words[1]).acknowledgeCumulative(received(words));
            case "nack" -> CONSUMERS.get(words[1]).negativeAcknowledge(received(words));
            case "close" -> {
                if (PRODUCERS.containsKey(words[1])) {
                    PRODUCERS.remove(words[1]).close();
                } else {
                    CONSUMERS.remove(words[1]).close();
                }
            }
            case "exit" -> {
                if (client != null) {
                    client.close();
                }
            }
            default -> throw new UnsupportedOperationException(words[0]);
        }
        return "ok";
    }

    private static String[] rest(String[] words, int from) {
        return Arrays.copyOfRange(words, from, words.length);
    }

    private static Message<byte[]> received(String[] words) {
        return MESSAGES.get(Integer.parseInt(words[2]));
    }

    private static void connect(String url, String[] options) throws Exception {
        ClientBuilder with = PulsarClient.builder().serviceUrl(url);
        for (String option : options) {
            String[] pair = option.split("=", 2);
            switch (pair[0]) {
                case "operation_timeout_ms" -> with.operationTimeout(Integer.parseInt(pair[1]), TimeUnit.MILLISECONDS)
                        .lookupTimeout(Integer.parseInt(pair[1]), TimeUnit.MILLISECONDS);
                case "connection_timeout_ms" -> with.connectionTimeout(Integer.parseInt(pair[1]), TimeUnit.MILLISECONDS);
                case "keep_alive_ms" -> with.keepAliveInterval(Integer.parseInt(pair[1]) / 1000, TimeUnit.SECONDS);
                case "token_file" -> with.authentication(
                        AuthenticationFactory.token("file://" + Path.of(pair[1]).toAbsolutePath()));
                default -> throw new UnsupportedOperationException(option);
            }
        }
        client = with.build();
    }

    private static void produce(String name, String topic, String[] options) throws Exception {
        ProducerBuilder<byte[]> with = client.newProducer().topic(topic);
        for (String option : options) {
            String[] pair = option.split("=", 2);
            switch (pair[0]) {
                case "batching" -> with.enableBatching(pair[1].equals("true"));
                case "send_timeout_ms" -> with.sendTimeout(Integer.parseInt(pair[1]), TimeUnit.MILLISECONDS);
                case "producer_name" -> with.producerName(pair[1]);
                case "access_mode" -> with.accessMode(ProducerAccessMode.Exclusive);
                default -> throw new UnsupportedOperationException(option);
            }
        }
        PRODUCERS.put(name, with.create());
    }

    private static void subscribe(String name, String topic, String subscription, String type, String[] options)
            throws Exception {
        ConsumerBuilder<byte[]> with = client.newConsumer().topic(topic).subscriptionName(subscription)
                .subscriptionType(TYPES.get(type));
        for (String option : options) {
            String[] pair = option.split("=", 2);
            switch (pair[0]) {
                case "position" -> with.subscriptionInitialPosition(SubscriptionInitialPosition.Earliest);
                case "queue" -> with.receiverQueueSize(Integer.parseInt(pair[1]));
                case "nack_delay_ms" -> with.negativeAckRedeliveryDelay(Long.parseLong(pair[1]), TimeUnit.MILLISECONDS);
                case "ack_timeout_ms" -> with.ackTimeout(Long.parseLong(pair[1]), TimeUnit.MILLISECONDS);
                case "batch_index_ack" -> with.enableBatchIndexAcknowledgment(pair[1].equals("true"));
                default -> throw new UnsupportedOperationException(option);
            }
        }
        CONSUMERS.put(name, with.subscribe());
    }

    private static void send(Producer<byte[]> producer, String number, String payload) {
        byte[] data = payload.getBytes(StandardCharsets.UTF_8);
        if (payload.startsWith("bytes:")) {
            data = new byte[Integer.parseInt(payload.substring(6))];
        }
        producer.sendAsync(data).whenComplete((id, error) -> {
            if (error != null) {
                say("sent " + number + " error " + error);
            } else {
                MessageIdAdv stored = (MessageIdAdv) id;
                say("sent " + number + " ok " + stored.getLedgerId() + ":" + stored.getEntryId());
            }
        });
    }

    private static String receive(Consumer<byte[]> consumer, int millis) throws Exception {
        Message<byte[]> message = consumer.receive(millis, TimeUnit.MILLISECONDS);
        if (message == null) {
            return "none";
        }
        MESSAGES.add(message);
        byte[] data = message.getData();
        String text = data.length <= 1000 ? new String(data, StandardCharsets.UTF_8) : "bytes:" + data.length;
        return "ok " + (MESSAGES.size() - 1) + " " + message.getRedeliveryCount() + " " + text;
    }
}
