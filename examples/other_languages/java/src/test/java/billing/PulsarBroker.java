package billing;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.pulsar.client.api.PulsarClient;
import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/** A Pulsar broker for the tests of a class: {@code @RegisterExtension static final PulsarBroker BROKER = new PulsarBroker();}. */
public final class PulsarBroker implements BeforeAllCallback, AfterAllCallback {
    private Process process;
    private String url;
    private PulsarClient client;

    /** The service URL. */
    public String url() {
        return url;
    }

    /** A client of this broker. */
    public PulsarClient client() {
        return client;
    }

    @Override
    public void beforeAll(ExtensionContext context) throws IOException {
        String program = System.getenv().getOrDefault("PULSAR_NATIVE", "pulsar-native");
        process = new ProcessBuilder(program, "broker", "--listen", "127.0.0.1:0", "--json", "--exit-with-parent")
                .redirectError(ProcessBuilder.Redirect.INHERIT)
                .start();
        BufferedReader announced = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
        String line = announced.readLine();
        if (line == null) {
            throw new IOException(program + " has ended before it listened");
        }
        url = field(line, "brokerServiceUrl");
        client = PulsarClient.builder().serviceUrl(url).build();
    }

    @Override
    public void afterAll(ExtensionContext context) throws Exception {
        if (client != null) {
            client.close();
        }
        process.destroy();
        process.waitFor();
    }

    /** Use the JSON library that your project has. */
    private static String field(String json, String name) throws IOException {
        Matcher found = Pattern.compile('"' + name + "\":\"([^\"]+)\"").matcher(json);
        if (!found.find()) {
            throw new IOException("no " + name + " in " + json);
        }
        return found.group(1);
    }
}
