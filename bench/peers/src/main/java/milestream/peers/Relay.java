package milestream.peers;

import java.util.Map;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/**
 * The stage {@code relay} of the bench as a Kafka Streams application: carries header and stamp of {@code UploadReceived}
 * on as {@code UploadGraded}. Streams itself carries key and headers on. Runs until it is killed; settings come from the
 * environment.
 */
public final class Relay {
    private Relay() {
    }

    public static void main(String[] arguments) {
        Registry registry = new Registry(setting("REGISTRY"));
        int outputId = Integer.parseInt(setting("OUTPUT_SCHEMA"));
        Schema received = registry.schema(Integer.parseInt(setting("INPUT_SCHEMA")));
        Schema graded = registry.schema(outputId);

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(setting("INPUT"), Consumed.with(Serdes.ByteArray(), new AvroSerde(registry, received, 0)))
                .mapValues(value -> relayed(value, graded))
                .to(setting("OUTPUT"), Produced.with(Serdes.ByteArray(), new AvroSerde(registry, graded, outputId)));

        Properties settings = new Properties();
        settings.putAll(Map.of(
                StreamsConfig.APPLICATION_ID_CONFIG, setting("GROUP"),
                StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, setting("BROKERS"),
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG, setting("GUARANTEE"),
                StreamsConfig.STATE_DIR_CONFIG, setting("STATE"),
                // As often as the other arms commit.
                StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, setting("COMMIT_MS"),
                // What the others write; all else is as Streams sets it.
                StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "zstd"));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static GenericRecord relayed(GenericRecord received, Schema schema) {
        GenericRecord graded = new GenericData.Record(schema);
        graded.put(0, received.get(0));
        graded.put(1, received.get(1));
        return graded;
    }

    private static String setting(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalArgumentException(name + " is not set: ./dev bench peers starts this program");
        }
        return value;
    }
}
