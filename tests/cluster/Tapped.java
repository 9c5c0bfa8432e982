import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.*;

/**
 * The official Java client with a producer and a consumer on each of four topics.
 *
 * <p>Arguments: messages for each topic; a plain URL, one with TLS and its CA file; two topics for the first, two for the other. The
 * first of two topics gets batches, the second one each message by itself. It fails unless each is stored, and comes once and in order.
 */
public class Tapped {
    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[0]);
        try (PulsarClient client = builder(arguments[1]).build()) {
            exchange(client, arguments[4], true, count);
            exchange(client, arguments[5], false, count);
        }
        ClientBuilder withTls = builder(arguments[2]).tlsTrustCertsFilePath(arguments[3]).enableTlsHostnameVerification(true);
        try (PulsarClient client = withTls.build()) {
            exchange(client, arguments[6], true, count);
            exchange(client, arguments[7], false, count);
        }
        System.exit(0);
    }

    private static ClientBuilder builder(String url) {
        return PulsarClient.builder().serviceUrl(url)
                .authentication(AuthenticationFactory.token(System.getenv("PULSAR_TOKEN")));
    }

    private static void exchange(PulsarClient client, String topic, boolean batches, int count) throws Exception {
        // Without a group time: the timer that sends groups may send an ACK behind the CLOSE_CONSUMER.
        try (Consumer<String> consumer = client.newConsumer(Schema.STRING).topic(topic).subscriptionName("s")
                        .acknowledgmentGroupTime(0, TimeUnit.MILLISECONDS).subscribe();
                Producer<String> producer = client.newProducer(Schema.STRING).topic(topic).enableBatching(batches).create()) {
            List<CompletableFuture<MessageId>> sends = new ArrayList<>();
            for (int number = 0; number < count; number++) {
                sends.add(producer.sendAsync("message " + number));
            }
            for (int number = 0; number < count; number++) {
                Message<String> message = consumer.receive(30, TimeUnit.SECONDS);
                if (message == null || !message.getValue().equals("message " + number)) {
                    throw new IllegalStateException(topic + ": no message " + number);
                }
                consumer.acknowledgeAsync(message).get(30, TimeUnit.SECONDS);
            }
            CompletableFuture.allOf(sends.toArray(new CompletableFuture[0])).get(30, TimeUnit.SECONDS);
        }
    }
}
