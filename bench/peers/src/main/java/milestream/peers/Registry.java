package milestream.peers;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.avro.Schema;

/** Schemas by id, each asked of the registry once. */
final class Registry {
    private final String url;
    private final Map<Integer, Schema> known = new ConcurrentHashMap<>();

    Registry(String url) {
        this.url = url;
    }

    Schema schema(int id) {
        Schema schema = known.get(id);
        return schema != null ? schema : known.computeIfAbsent(id, this::fetched);
    }

    private Schema fetched(int id) {
        try (var answer = URI.create(url + "/schemas/ids/" + id).toURL().openStream()) {
            return new Schema.Parser().parse(new ObjectMapper().readTree(answer).get("schema").textValue());
        } catch (IOException error) {
            throw new UncheckedIOException("schema " + id, error);
        }
    }
}
