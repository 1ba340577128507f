package rebeca.fold;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.Instant;

/** One feedback event, parsed as a stream of tokens without a tree. */
final class Event {
    private static final JsonFactory JSON = new JsonFactory();

    String id;
    String user;
    String item;
    byte kind;
    double value;
    long occurredAt; // ms since 1970

    /** Reads an event into this object; false for one that lacks a field or is not JSON. */
    boolean parse(byte[] json) {
        id = user = item = null;
        kind = 0;
        value = Double.NaN;
        occurredAt = -1;
        try (JsonParser p = JSON.createParser(json)) {
            if (p.nextToken() != JsonToken.START_OBJECT) {
                return false;
            }
            for (String field = p.nextFieldName(); field != null; field = p.nextFieldName()) {
                JsonToken token = p.nextToken();
                switch (field) {
                    case "event_id" -> id = p.getText();
                    case "user_id" -> user = p.getText();
                    case "item_id" -> item = p.getText();
                    case "kind" -> kind = kind(p.getText());
                    case "value" -> value = token == JsonToken.VALUE_NULL ? Double.NaN : p.getDoubleValue();
                    case "occurred_at" -> occurredAt = Instant.parse(p.getText()).toEpochMilli();
                    default -> p.skipChildren();
                }
            }
        } catch (IOException | DateTimeException e) {
            return false;
        }
        return id != null && user != null && item != null && kind != 0 && occurredAt >= 0;
    }

    private static byte kind(String name) {
        return switch (name) {
            case "like" -> 1;
            case "dislike" -> 2;
            case "click" -> 3;
            case "view" -> 4;
            case "rating" -> 5;
            case "skip" -> 6;
            case "share" -> 7;
            case "save" -> 8;
            case "hide" -> 9;
            default -> 0;
        };
    }

    boolean positive() {
        return switch (kind) {
            case 1, 3, 7, 8 -> true;
            case 4 -> value >= 10;
            case 5 -> value >= 4;
            default -> false;
        };
    }

    /** The hash by which a resend is known: 64-bit FNV-1a over the id. */
    long hash() {
        long h = 0xcbf29ce484222325L;
        for (int i = 0; i < id.length(); i++) {
            h = (h ^ id.charAt(i)) * 0x100000001b3L;
        }
        return h;
    }
}
