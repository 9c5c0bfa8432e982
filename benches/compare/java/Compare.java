import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.IntStream;
import org.apache.pulsar.client.api.AuthenticationFactory;
import org.apache.pulsar.client.api.CompressionType;
import org.apache.pulsar.client.api.Consumer;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.PulsarClient;
import org.apache.pulsar.client.api.PulsarClientException;
import org.apache.pulsar.client.api.SizeUnit;
import org.apache.pulsar.client.api.SubscriptionInitialPosition;
import org.apache.pulsar.client.api.SubscriptionType;

/**
 * The Java client, with its best settings for each kind of work:
 *
 * <ul>
 *   <li>{@code sendAsync}, which waits by itself when the window of its producer is full; no limit of memory, no
 *       statistics, no logging; Netty's epoll transport, which comes with the client;
 *   <li>batches of up to the asked count and 1 MiB, published after 1 ms at the latest;
 *   <li>5,000 messages in the receiver queue, pooled messages ({@code poolMessages}), acknowledgements by
 *       {@code acknowledgeAsync}, grouped as by default (1,000 or 100 ms);
 *   <li>for latencies, batches at the high rate, with the delay that suits it best, and none at the low one.
 * </ul>
 *
 * What the driver asks for as warm-up is long enough for the JVM's compiler.
 */
public final class Compare {
    /** Before latencies count, brokers and connections warm up for this time. */
    private static final int LATENCY_WARM_UP_SECS = 2;

    private static final int TEXTS = 1024;

    private final Map<String, String> words = new HashMap<>();
    private final PulsarClient client;

    @SuppressWarnings("deprecation") // Nothing else turns the statistics off.
    private Compare(String[] args) throws PulsarClientException {
        for (String word : Arrays.asList(args).subList(2, args.length)) {
            String[] pair = word.split("=", 2);
            words.put(pair[0], pair[1]);
        }
        var builder = PulsarClient.builder().serviceUrl(args[1]).memoryLimit(0, SizeUnit.BYTES);
        builder.statsInterval(0, TimeUnit.SECONDS);
        String token = System.getenv("PULSAR_TOKEN");
        if (token != null && !token.isEmpty()) {
            builder.authentication(AuthenticationFactory.token(token));
        }
        client = builder.build();
    }

    public static void main(String[] args) throws Exception {
        Compare compare = new Compare(args);
        System.out.println(switch (args[0]) {
            case "produce" -> compare.produce();
            case "consume" -> compare.consume();
            case "latency" -> compare.latency();
            default -> compare.start();
        });
        System.out.flush();
        // Threads that never end do not hold the process up.
        Runtime.getRuntime().halt(0);
    }

    private int number(String name) {
        return Integer.parseInt(words.getOrDefault(name, "0"));
    }

    private Producer<byte[]> producer(String topic, int pending) throws PulsarClientException {
        int batch = number("batch");
        var builder = client.newProducer().topic(topic).maxPendingMessages(pending).blockIfQueueFull(true);
        builder.enableBatching(batch > 1).batchingMaxMessages(Math.max(batch, 2)).batchingMaxBytes(1024 * 1024);
        builder.batchingMaxPublishDelay(Math.max(number("delay_ms"), 1), TimeUnit.MILLISECONDS);
        String codec = words.getOrDefault("codec", "");
        builder.compressionType(codec.isEmpty() ? CompressionType.NONE : CompressionType.valueOf(codec.toUpperCase()));
        return builder.create();
    }

    private String produce() throws Exception {
        List<Producer<byte[]>> producers = new ArrayList<>();
        int count = Math.max(number("producers"), 1);
        for (int number = 0; number < count; number++) {
            producers.add(producer(words.get("topic") + number, Math.max(number("in_flight") / count, 1)));
        }
        byte[][] payloads = payloads();
        produceSome(producers, payloads, number("warm_up"));
        Measurement measurement = new Measurement();
        produceSome(producers, payloads, number("messages"));
        return measurement.stop(number("messages"));
    }

    private void produceSome(List<Producer<byte[]>> producers, byte[][] payloads, int messages) throws Exception {
        Semaphore stored = new Semaphore(0);
        for (int number = 0; number < messages; number++) {
            var send = producers.get(number % producers.size()).sendAsync(payloads[number % payloads.length]);
            send.whenComplete((id, error) -> {
                check(error);
                stored.release();
            });
        }
        stored.acquire(messages);
    }

    private Consumer<byte[]> consumer() throws PulsarClientException {
        var builder = client.newConsumer().topics(topics()).subscriptionName(words.get("subscription"));
        builder.subscriptionType(SubscriptionType.Shared).poolMessages(true);
        builder.subscriptionInitialPosition(SubscriptionInitialPosition.Earliest);
        return builder.receiverQueueSize(Math.max(number("queue"), 1)).subscribe();
    }

    /** One, or as many as there are, numbered. */
    private List<String> topics() {
        String topic = words.get("topic");
        int count = number("topics");
        return count < 2 ? List.of(topic) : IntStream.range(0, count).mapToObj(of -> topic + "-" + of).toList();
    }

    private String consume() throws Exception {
        Consumer<byte[]> consumer = consumer();
        take(consumer, number("warm_up"));
        Measurement measurement = new Measurement();
        take(consumer, number("messages"));
        String figures = measurement.stop(number("messages"));
        consumer.close();
        return figures;
    }

    private void take(Consumer<byte[]> consumer, int messages) throws PulsarClientException {
        long taken = 0;
        for (int number = 0; number < messages; number++) {
            Message<byte[]> message = consumer.receive();
            taken += message.size();
            consumer.acknowledgeAsync(message);
            message.release();
        }
        if (taken != (long) messages * number("size")) {
            throw new IllegalStateException(taken + " bytes came");
        }
    }

    /** Messages at a fixed rate, however long each takes; latencies count from when a message was due. */
    private String latency() throws Exception {
        Consumer<byte[]> in = consumer();
        Producer<byte[]> out = producer(words.get("topic"), 65536);
        int messages = number("messages");
        int rate = number("rate");
        int size = Math.max(number("size"), 8);
        var warm = CompletableFuture.runAsync(() -> {
            for (int number = 0; number < number("warm_up"); number++) {
                out.sendAsync(new byte[size]);
            }
        });
        take(in, number("warm_up"));
        warm.get();
        long gap = TimeUnit.SECONDS.toNanos(1) / rate;
        long start = System.nanoTime();
        Thread pacing = new Thread(() -> {
            for (int number = 0; number < messages; number++) {
                long due = gap * number;
                for (long early; (early = start + due - System.nanoTime()) > 0; ) {
                    LockSupport.parkNanos(early);
                }
                ByteBuffer payload = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN).putLong(0, due);
                out.sendAsync(payload.array()).whenComplete((id, error) -> check(error));
            }
        });
        pacing.start();
        int warmUp = Math.min(LATENCY_WARM_UP_SECS * rate, messages / 2);
        long[] latencies = new long[messages - warmUp];
        for (int number = 0; number < messages; number++) {
            Message<byte[]> message = in.receive();
            long due = ByteBuffer.wrap(message.getData()).order(ByteOrder.LITTLE_ENDIAN).getLong();
            if (number >= warmUp) {
                latencies[number - warmUp] = System.nanoTime() - start - due;
            }
            in.acknowledgeAsync(message);
            message.release();
        }
        Arrays.sort(latencies);
        return String.format("n=%d p50_ns=%d p99_ns=%d p999_ns=%d max_ns=%d", latencies.length, at(latencies, 0.5),
                at(latencies, 0.99), at(latencies, 0.999), at(latencies, 1));
    }

    /** A message of a process that has just begun, there and back. */
    private String start() throws Exception {
        Consumer<byte[]> in = consumer();
        producer(words.get("topic"), 1000).send(payloads()[0]);
        in.acknowledgeAsync(in.receive());
        return "cpu_ns=" + Measurement.cpuNs() + " rss_kib=" + Measurement.residentKib();
    }

    private static long at(long[] sorted, double part) {
        return sorted[Math.min((int) (sorted.length * part), sorted.length - 1)];
    }

    private static void check(Throwable error) {
        if (error != null) {
            System.err.println(error);
            Runtime.getRuntime().halt(1);
        }
    }

    /** Under a codec texts, else one payload; the same as the Rust programs send. */
    private byte[][] payloads() {
        int size = number("size");
        if (words.getOrDefault("codec", "").isEmpty()) {
            return new byte[][] {"x".repeat(size).getBytes(StandardCharsets.US_ASCII)};
        }
        byte[][] all = new byte[TEXTS][];
        for (int number = 0; number < TEXTS; number++) {
            long state = number + 1;
            StringBuilder text = new StringBuilder();
            while (text.length() < size) {
                state ^= state << 13;
                state ^= state >>> 7;
                state ^= state << 17;
                text.append(String.format("field=\"%016x\" ", state));
            }
            all[number] = text.substring(0, size).getBytes(StandardCharsets.US_ASCII);
        }
        return all;
    }

    private static final class Measurement {
        private final long cpuNs = cpuNs();
        private final long at = System.nanoTime();

        String stop(int messages) throws Exception {
            double secs = (System.nanoTime() - at) / 1e9;
            long cpu = cpuNs() - cpuNs;
            return String.format("messages=%d secs=%.6f cpu_ns=%d rss_kib=%d", messages, secs, cpu, residentKib());
        }

        /** CPU time of all threads, those of the JVM and ended ones too: its compiler's and collector's come and go. */
        private static long cpuNs() {
            var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
            return system.getProcessCpuTime();
        }

        /** The most memory the process ever had resident. */
        private static long residentKib() throws Exception {
            for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
                if (line.startsWith("VmHWM:")) {
                    return Long.parseLong(line.split("\\s+")[1]);
                }
            }
            return 0;
        }
    }
}
