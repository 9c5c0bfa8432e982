package orders;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import org.springframework.test.context.DynamicPropertyRegistry;

/** A Pulsar broker with its REST interface, which ends with the tests. */
final class PulsarBroker {
    private final JsonNode announced;

    PulsarBroker() throws IOException {
        String program = System.getenv().getOrDefault("PULSAR_NATIVE", "pulsar-native");
        Process process = new ProcessBuilder(
                        program, "broker", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json", "--exit-with-parent")
                .redirectError(ProcessBuilder.Redirect.INHERIT)
                .start();
        announced = new ObjectMapper().readTree(process.inputReader().readLine());
        Runtime.getRuntime().addShutdownHook(new Thread(process::destroy));
    }

    /** Tells the application where it is. */
    void register(DynamicPropertyRegistry registry) {
        registry.add("spring.pulsar.client.service-url", () -> announced.get("brokerServiceUrl").asText());
        registry.add("spring.pulsar.admin.service-url", () -> announced.get("serviceUrl").asText());
    }
}
