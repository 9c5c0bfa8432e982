package orders;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import java.io.IOException;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.pulsar.core.PulsarAdministration;
import org.springframework.test.context.DynamicPropertyRegistry;
import org.springframework.test.context.DynamicPropertySource;

@SpringBootTest(properties = "logging.level.root=warn")
class OrdersTest {
    @Autowired
    private Orders orders;

    @Autowired
    private PulsarAdministration administration;

    @DynamicPropertySource
    static void broker(DynamicPropertyRegistry registry) throws IOException {
        new PulsarBroker().register(registry);
    }

    @Test
    void eachOrderIsBilled() throws Exception {
        for (int number = 0; number < 30; number++) {
            orders.take(new Orders.Order(number, "item " + number));
        }
        await().atMost(Duration.ofSeconds(30)).until(() -> orders.billed().size() == 30);
        assertThat(orders.billed()).containsEntry(7, "item 7");

        try (var admin = administration.createAdminClient()) {
            var topic = "persistent://public/default/orders";
            assertThat(admin.topics().getPartitionedTopicMetadata(topic).partitions).isEqualTo(3);
            var stats = admin.topics().getPartitionedStats(topic, false);
            assertThat(stats.getMsgInCounter()).isEqualTo(30);
            await().atMost(Duration.ofSeconds(30)).until(() -> backlog(admin, topic) == 0);
            assertThat(stats.getSubscriptions()).containsOnlyKeys("billing");
        }
    }

    private static long backlog(org.apache.pulsar.client.admin.PulsarAdmin admin, String topic) throws Exception {
        Map<String, ? extends org.apache.pulsar.common.policies.data.SubscriptionStats> subscriptions =
                admin.topics().getPartitionedStats(topic, false).getSubscriptions();
        return subscriptions.get("billing").getMsgBacklog();
    }
}
