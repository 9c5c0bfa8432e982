import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.*;

/** The official Java client behind the line protocol of `pulsar-native referee`. */
public class Glue {
    private static final Map<String, SubscriptionType> TYPES = Map.of("exclusive", SubscriptionType.Exclusive,
            "shared", SubscriptionType.Shared, "failover", SubscriptionType.Failover, "key_shared", SubscriptionType.Key_Shared);
    private static final Map<String, Producer<byte[]>> producers = new HashMap<>();
    private static final Map<String, Consumer<byte[]>> consumers = new HashMap<>();
    private static final Map<String, Message<byte[]>> messages = new HashMap<>();
    private static PulsarClient client;

    public static void main(String[] arguments) throws Exception {
        say("ready pulsar-client-java " + PulsarClient.class.getPackage().getImplementationVersion());
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            try {
                var words = List.of(line.split(" ", -1));
                say(answer(words.get(0), words.subList(1, words.size())));
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
        System.out.writeBytes((line.replace('\n', ' ') + "\n").getBytes(StandardCharsets.UTF_8));
        System.out.flush();
    }

    private static String answer(String request, List<String> words) throws Exception {
        switch (request) {
            case "connect" -> client = connect(words.get(0), Integer.parseInt(words.get(1)), words.subList(2, words.size()));
            case "producer" -> producers.put(words.get(0), produce(words.get(1), words.subList(2, words.size())));
            case "subscribe" -> consumers.put(words.get(0), subscribe(words.subList(1, 5), words.subList(5, words.size())));
            case "send" -> send(words.get(0), words.get(1), String.join(" ", words.subList(2, words.size())));
            case "receive" -> {
                var message = consumers.get(words.get(0)).receive(Integer.parseInt(words.get(2)), TimeUnit.MILLISECONDS);
                if (message == null) {
                    return "none";
                }
                messages.put(words.get(1), message);
                int shown = Math.min(message.getData().length, 1000);
                return "ok " + message.getRedeliveryCount() + " " + new String(message.getData(), 0, shown, StandardCharsets.UTF_8);
            }
            case "ack" -> consumers.get(words.get(0)).acknowledge(messages.get(words.get(1)));
            case "ack_cumulative" -> consumers.get(words.get(0)).acknowledgeCumulative(messages.get(words.get(1)));
            case "nack" -> consumers.get(words.get(0)).negativeAcknowledge(messages.get(words.get(1)));
            case "close" -> (producers.containsKey(words.get(0)) ? producers : consumers).get(words.get(0)).close();
            case "exit" -> {
                if (client != null) {
                    client.close();
                }
            }
            default -> throw new UnsupportedOperationException(request);
        }
        return "ok";
    }

    private static PulsarClient connect(String url, int timeout, List<String> options) throws Exception {
        var builder = PulsarClient.builder().serviceUrl(url).operationTimeout(timeout, TimeUnit.MILLISECONDS);
        for (var option : options) {
            var value = option.substring(option.indexOf('=') + 1);
            switch (option.split("=")[0]) {
                case "connection_timeout_ms" -> builder.connectionTimeout(Integer.parseInt(value), TimeUnit.MILLISECONDS);
                case "keep_alive_ms" -> builder.keepAliveInterval(Integer.parseInt(value), TimeUnit.MILLISECONDS);
                case "token_file" -> builder.authentication(AuthenticationFactory.token(() -> read(value)));
                default -> throw new UnsupportedOperationException(option);
            }
        }
        return builder.build();
    }

    private static String read(String file) {
        try {
            return Files.readString(Path.of(file));
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    private static Producer<byte[]> produce(String topic, List<String> options) throws Exception {
        var builder = client.newProducer().topic(topic).enableBatching(false);
        for (var option : options) {
            var value = option.substring(option.indexOf('=') + 1);
            switch (option.split("=")[0]) {
                case "batching" -> builder.enableBatching(value.equals("true"));
                case "send_timeout_ms" -> builder.sendTimeout(Integer.parseInt(value), TimeUnit.MILLISECONDS);
                case "producer_name" -> builder.producerName(value);
                case "access_mode" -> builder.accessMode(ProducerAccessMode.Exclusive);
                default -> throw new UnsupportedOperationException(option);
            }
        }
        return builder.create();
    }

    private static void send(String producer, String number, String payload) {
        producers.get(producer).sendAsync(payload.getBytes(StandardCharsets.UTF_8)).whenComplete((id, error) -> {
            var position = (MessageIdAdv) id;
            say("sent " + number + (error == null ? " ok " + position.getLedgerId() + ":" + position.getEntryId() : " error " + error));
        });
    }

    private static Consumer<byte[]> subscribe(List<String> fixed, List<String> options) throws Exception {
        var builder = client.newConsumer().topic(fixed.get(0)).subscriptionName(fixed.get(1))
                .subscriptionType(TYPES.get(fixed.get(2))).receiverQueueSize(Integer.parseInt(fixed.get(3)))
                .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest);
        for (var option : options) {
            var value = option.substring(option.indexOf('=') + 1);
            switch (option.split("=")[0]) {
                case "nack_delay_ms" -> builder.negativeAckRedeliveryDelay(Integer.parseInt(value), TimeUnit.MILLISECONDS);
                case "ack_timeout_ms" -> builder.ackTimeout(Integer.parseInt(value), TimeUnit.MILLISECONDS);
                case "batch_index_ack" -> builder.enableBatchIndexAcknowledgment(value.equals("true"));
                default -> throw new UnsupportedOperationException(option);
            }
        }
        return builder.subscribe();
    }
}
