package orders;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.pulsar.client.api.SubscriptionType;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.pulsar.annotation.PulsarListener;
import org.springframework.pulsar.core.PulsarTemplate;
import org.springframework.pulsar.core.PulsarTopic;

/** Takes orders, and bills each of them once. */
@SpringBootApplication
public class Orders {

    /** An order, as JSON with its schema. */
    public record Order(int number, String item) {
    }

    private final Map<Integer, String> billed = new ConcurrentHashMap<>();
    private final PulsarTemplate<Order> pulsar;

    Orders(PulsarTemplate<Order> pulsar) {
        this.pulsar = pulsar;
    }

    public static void main(String[] arguments) {
        SpringApplication.run(Orders.class, arguments);
    }

    /** The starter's administration makes it, by the REST interface of the broker. */
    @Bean
    static PulsarTopic topic() {
        return PulsarTopic.builder("orders").numberOfPartitions(3).build();
    }

    public void take(Order order) {
        pulsar.send("orders", order);
    }

    @PulsarListener(topics = "orders", subscriptionName = "billing", subscriptionType = SubscriptionType.Shared)
    void bill(Order order) {
        billed.put(order.number(), order.item());
    }

    public Map<Integer, String> billed() {
        return billed;
    }
}
