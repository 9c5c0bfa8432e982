package billing;

import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.Consumer;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.PulsarClient;
import org.apache.pulsar.client.api.PulsarClientException;
import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.client.api.SubscriptionInitialPosition;

/** The application: sends an invoice for each order. */
public final class Billing {
    private Billing() {}

    /** Bills so many orders. */
    public static void bill(PulsarClient client, int orders) throws PulsarClientException {
        try (Consumer<String> consumer = client.newConsumer(Schema.STRING)
                        .topic("orders")
                        .subscriptionName("billing")
                        .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                        .subscribe();
                Producer<String> producer = client.newProducer(Schema.STRING).topic("invoices").create()) {
            for (int billed = 0; billed < orders; billed++) {
                Message<String> order = consumer.receive(10, TimeUnit.SECONDS);
                producer.newMessage().key(order.getKey()).value("invoice for " + order.getValue()).send();
                consumer.acknowledge(order);
            }
        }
    }
}
