import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Java's client for the ring of clients.
 *
 * <pre>
 * Ring write BOOTSTRAP TOPIC PARTITION CODEC     records on stdin
 * Ring read BOOTSTRAP TOPIC PARTITION COUNT      records on stdout, with offsets
 * Ring group BOOTSTRAP TOPIC PROTOCOL COUNT      a group that grows and shrinks while it reads the topic's COUNT records;
 *                                                PROTOCOL is consumer, or the name of a classic assignor's class
 * </pre>
 *
 * One record per line: [offset TAB] timestamp in ms TAB key TAB value TAB name:value;name:value - texts as hexadecimal, null as
 * "-".
 */
public final class Ring {
    /** Far longer than anything takes. */
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "write" -> write(args[1], args[2], Integer.parseInt(args[3]), args[4]);
            case "read" -> read(args[1], args[2], Integer.parseInt(args[3]), Integer.parseInt(args[4]));
            case "group" -> new Group(args[1], args[2], args[3], Integer.parseInt(args[4])).run();
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static void write(String bootstrap, String topic, int partition, String codec) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("compression.type", codec);
        config.put("linger.ms", "20");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] fields = line.split("\t", -1);
                var record = new ProducerRecord<>(topic, partition, Long.parseLong(fields[0]), data(fields[1]), data(fields[2]));
                for (String pair : fields[3].split(";")) {
                    if (!pair.isEmpty()) {
                        String[] header = pair.split(":", -1);
                        String name = new String(data(header[0]), StandardCharsets.UTF_8);
                        record.headers().add(new RecordHeader(name, data(header[1])));
                    }
                }
                sent.add(producer.send(record));
            }
            for (var future : sent) {
                future.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
            }
        }
    }

    private static void read(String bootstrap, String topic, int partition, int count) {
        var out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        try (var consumer = consumer(bootstrap, Map.of())) {
            var place = new TopicPartition(topic, partition);
            consumer.assign(List.of(place));
            consumer.seek(place, 0);
            long until = System.nanoTime() + PATIENCE.toNanos();
            for (int found = 0; found < count && System.nanoTime() < until; ) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    var headers = new ArrayList<String>();
                    for (var header : record.headers()) {
                        headers.add(text(header.key().getBytes(StandardCharsets.UTF_8)) + ":" + text(header.value()));
                    }
                    out.println(record.offset() + "\t" + record.timestamp() + "\t" + text(record.key()) + "\t"
                            + text(record.value()) + "\t" + String.join(";", headers));
                    found++;
                }
            }
        }
        out.flush();
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, String> more) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", "earliest");
        config.putAll(more);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static String text(byte[] data) {
        return data == null ? "-" : HexFormat.of().formatHex(data);
    }

    private static byte[] data(String text) {
        return text.equals("-") ? null : HexFormat.of().parseHex(text);
    }

    /** Members come one after the other while records are read, and one goes again. */
    private static final class Group {
        private final String bootstrap;
        private final String topic;
        private final Map<String, String> config;
        private final int count;
        private final Set<String> seen = ConcurrentHashMap.newKeySet();
        private final AtomicLong again = new AtomicLong();
        private final Set<Integer> members = ConcurrentHashMap.newKeySet();
        private final Set<Integer> assigned = ConcurrentHashMap.newKeySet();
        /** So many records, about, may be read by now: each member is to have its part. */
        private volatile int limit;
        private volatile boolean secondStays = true;
        private final long until = System.nanoTime() + PATIENCE.toNanos();

        Group(String bootstrap, String topic, String protocol, int count) {
            this.bootstrap = bootstrap;
            this.topic = topic;
            this.count = count;
            String group = "java-" + protocol.substring(protocol.lastIndexOf('.') + 1);
            this.config = protocol.equals("consumer")
                    ? Map.of("group.id", group, "group.protocol", "consumer", "max.poll.records", "20")
                    : Map.of("group.id", group, "partition.assignment.strategy", protocol, "max.poll.records", "20");
        }

        void run() throws Exception {
            var threads = new ArrayList<Thread>();
            for (int number = 0; number < 3; number++) {
                int member = number;
                var thread = new Thread(() -> member(member), "member " + number);
                thread.start();
                threads.add(thread);
                // The next one comes when this one has its share, and a part has been read with it.
                await(() -> assigned.contains(member));
                limit = count * (number + 1) / 6;
                await(() -> seen.size() >= limit);
            }
            secondStays = false;
            threads.get(1).join();
            limit = count;
            for (var thread : threads) {
                thread.join();
            }
            try (var consumer = consumer(bootstrap, config)) {
                var partitions = consumer.partitionsFor(topic).stream()
                        .map(info -> new TopicPartition(topic, info.partition())).collect(Collectors.toSet());
                long committed = consumer.committed(partitions).values().stream()
                        .mapToLong(offset -> offset == null ? 0 : offset.offset()).sum();
                System.out.println(seen.size() + " " + again.get() + " " + committed + " " + members.size());
            }
        }

        private void await(BooleanSupplier what) throws InterruptedException {
            while (!what.getAsBoolean() && System.nanoTime() < until) {
                Thread.sleep(5);
            }
        }

        private boolean stays(int number) {
            return (number == 1 ? secondStays : seen.size() < count) && System.nanoTime() < until;
        }

        private void member(int number) {
            try (var consumer = consumer(bootstrap, config)) {
                consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                    @Override
                    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                        consumer.commitSync();
                    }

                    @Override
                    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                        if (!partitions.isEmpty()) {
                            assigned.add(number);
                        }
                    }
                });
                while (stays(number)) {
                    if (seen.size() >= limit) {
                        consumer.pause(consumer.assignment());
                    } else {
                        consumer.resume(consumer.paused());
                    }
                    for (var record : consumer.poll(Duration.ofMillis(100))) {
                        members.add(number);
                        if (!seen.add(record.partition() + "/" + record.offset())) {
                            again.incrementAndGet();
                        }
                    }
                }
                // What was read is done with; where the group stands after that is what is checked.
                consumer.commitSync();
            }
        }
    }
}
