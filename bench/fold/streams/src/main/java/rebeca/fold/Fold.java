package rebeca.fold;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The fold of package table as an application of Kafka Streams: per user, counts, the last 48 entries and as many hashes of event
 * ids, by which a resend is known; exactly_once_v2, RocksDB, a changelog topic.
 *
 * <p>Its work is less than the table's in this: no reservoir of older likes, no undo, no forget marks, no intents, no dead letters
 * (what cannot be read is dropped), no check that a key lies in its partition or is Unicode, 48 ids of resends instead of 64, FNV
 * instead of SHA-256 for their hashes, no numbering of item ids. It is more in this: every row also goes to the changelog topic, which is
 * how Kafka Streams survives the loss of a disk.
 *
 * <p>Arguments: bootstrap servers, topic, application id, state folder, threads, commit interval in ms, cache in bytes. It prints
 * "running" when it begins and, at SIGTERM, "folded N duplicates D users U".
 */
public final class Fold {
    private static final String ROWS = "rows";
    private static final AtomicLong folded = new AtomicLong();
    private static final AtomicLong duplicates = new AtomicLong();
    private static final AtomicLong users = new AtomicLong();

    private Fold() {}

    public static void main(String[] args) throws InterruptedException {
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, args[2]);
        config.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(args[3]).toString());
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, args[4]);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[5]);
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, args[6]);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");

        CountDownLatch stop = new CountDownLatch(1);
        try (KafkaStreams streams = new KafkaStreams(topology(args[1]), config)) {
            streams.setStateListener((now, before) -> {
                if (now == KafkaStreams.State.RUNNING) {
                    System.out.println("running");
                } else if (now == KafkaStreams.State.ERROR) {
                    stop.countDown();
                }
            });
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                System.out.println("folded " + folded + " duplicates " + duplicates + " users " + users);
                System.out.flush();
                Runtime.getRuntime().halt(0);
            }));
            streams.start();
            stop.await();
        }
        System.exit(1);
    }

    private static Topology topology(String topic) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores
            .keyValueStoreBuilder(Stores.persistentKeyValueStore(ROWS), Serdes.ByteArray(), Serdes.ByteArray())
            .withCachingEnabled()
            .withLoggingEnabled(Map.of()));
        builder.stream(topic, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray())).process(Folding::new, ROWS);
        return builder.build();
    }

    /** Reads a user's row, folds one event into it and writes it back. */
    private static final class Folding implements Processor<byte[], byte[], Void, Void> {
        private KeyValueStore<byte[], byte[]> rows;
        private final Event event = new Event();

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            rows = context.getStateStore(ROWS);
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            if (record.key() == null || record.value() == null || !event.parse(record.value())
                || !event.user.equals(new String(record.key(), StandardCharsets.UTF_8))) {
                return;
            }
            byte[] before = rows.get(record.key());
            byte[] after = Row.fold(before, event);
            if (after == null) {
                duplicates.incrementAndGet();
                return;
            }
            rows.put(record.key(), after);
            folded.incrementAndGet();
            if (before == null) {
                users.incrementAndGet();
            }
        }
    }
}
