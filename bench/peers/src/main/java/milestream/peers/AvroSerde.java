package milestream.peers;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/**
 * Confluent framing around plain Avro: byte 0, the schema id as a big-endian int, the datum. Readers, writers, decoder and
 * encoder are made once; texts stay {@code Utf8}, which is the quickest that Avro has. Used by one thread.
 */
final class AvroSerde implements Serde<GenericRecord> {
    private static final int HEADER = 5;

    private final Registry registry;
    private final Schema schema;
    private final int id;
    private final Map<Integer, GenericDatumReader<GenericRecord>> readers = new HashMap<>();
    private final GenericDatumWriter<GenericRecord> writer;
    private final ByteArrayOutputStream buffer = new ByteArrayOutputStream(1024);
    private BinaryDecoder decoder;
    private BinaryEncoder encoder;

    AvroSerde(Registry registry, Schema schema, int id) {
        this.registry = registry;
        this.schema = schema;
        this.id = id;
        this.writer = new GenericDatumWriter<>(schema);
    }

    @Override
    public Serializer<GenericRecord> serializer() {
        return (topic, record) -> written(record);
    }

    @Override
    public Deserializer<GenericRecord> deserializer() {
        return (topic, bytes) -> read(bytes);
    }

    private byte[] written(GenericRecord record) {
        try {
            buffer.reset();
            buffer.writeBytes(ByteBuffer.allocate(HEADER).put((byte) 0).putInt(id).array());
            encoder = EncoderFactory.get().binaryEncoder(buffer, encoder);
            writer.write(record, encoder);
            encoder.flush();
            return buffer.toByteArray();
        } catch (IOException error) {
            throw new SerializationException(error);
        }
    }

    private GenericRecord read(byte[] bytes) {
        ByteBuffer header = ByteBuffer.wrap(bytes);
        if (header.get() != 0) {
            throw new SerializationException("not Confluent framing");
        }
        var reader = readers.computeIfAbsent(header.getInt(),
                writerId -> new GenericDatumReader<>(registry.schema(writerId), schema));
        try {
            decoder = DecoderFactory.get().binaryDecoder(bytes, HEADER, bytes.length - HEADER, decoder);
            return reader.read(null, decoder);
        } catch (IOException error) {
            throw new SerializationException(error);
        }
    }
}
