import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.ArrayList;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.*;
import org.apache.pulsar.client.impl.AutoClusterFailover;

/**
 * The official Java client: a producer and a consumer of one topic, which stay from the first request on.
 *
 * <p>Arguments: the topic, and "failover" or "follow". With "failover", AutoClusterFailover with the delays of java.rs; with
 * "follow" what the brokers say. A request is a line with a word and two numbers: "send" and "receive" the messages from the
 * first number up to the other. The answer is "done", or the error.
 */
public class Peer {
    private static final int SECONDS_MAX = 60;

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[0];
        Authentication first = AuthenticationFactory.token(System.getenv("FAILOVER_TOKEN_1"));
        ClientBuilder builder = PulsarClient.builder().authentication(first);
        if (arguments[1].equals("failover")) {
            builder.serviceUrlProvider(failover());
        } else {
            builder.serviceUrl(System.getenv("FAILOVER_URL_1"));
        }
        try (PulsarClient client = builder.build()) {
            Producer<String> producer = client.newProducer(Schema.STRING).topic(topic)
                    .sendTimeout(SECONDS_MAX, TimeUnit.SECONDS).create();
            Consumer<String> consumer = client.newConsumer(Schema.STRING).topic(topic).subscriptionName("java")
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest).subscribe();
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                System.out.println(answer(producer, consumer, line.split(" ")));
                System.out.flush();
            }
        }
    }

    private static ServiceUrlProvider failover() throws Exception {
        String secondary = System.getenv("FAILOVER_URL_2");
        return AutoClusterFailover.builder()
                .primary(System.getenv("FAILOVER_URL_1"))
                .secondary(List.of(secondary))
                .secondaryAuthentication(
                        Map.of(secondary, AuthenticationFactory.token(System.getenv("FAILOVER_TOKEN_2"))))
                .checkInterval(1, TimeUnit.SECONDS)
                .failoverDelay(2, TimeUnit.SECONDS)
                .switchBackDelay(3, TimeUnit.SECONDS)
                .build();
    }

    private static String answer(Producer<String> producer, Consumer<String> consumer, String[] request) {
        int from = Integer.parseInt(request[1]);
        int to = Integer.parseInt(request[2]);
        try {
            if (request[0].equals("send")) {
                List<CompletableFuture<MessageId>> sends = new ArrayList<>();
                for (int number = from; number < to; number++) {
                    sends.add(producer.sendAsync("java " + number));
                }
                for (CompletableFuture<MessageId> send : sends) {
                    send.get(SECONDS_MAX, TimeUnit.SECONDS);
                }
            } else {
                receive(consumer, from, to);
            }
            return "done";
        } catch (Exception error) {
            return "failed: " + error.toString().replace('\n', ' ');
        }
    }

    /** Until all that we have sent of these have come; others may be repetitions, or its own. */
    private static void receive(Consumer<String> consumer, int from, int to) throws Exception {
        Set<String> missing = new HashSet<>();
        for (int number = from; number < to; number++) {
            missing.add("ours " + number);
        }
        while (!missing.isEmpty()) {
            Message<String> message = consumer.receive(SECONDS_MAX, TimeUnit.SECONDS);
            if (message == null) {
                throw new PulsarClientException("still missing: " + missing);
            }
            missing.remove(message.getValue());
            consumer.acknowledge(message);
        }
    }
}
