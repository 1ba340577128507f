package rebeca.fold;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * A row is patched as bytes, without an object of it: events, positives, negatives u64 | n hashes, n entries u8 | hashes u64 |
 * entries. An entry is: length of the item id u8, item id, kind u8, value f64, occurred_at i64. Both lists are the newest last.
 */
final class Row {
    private static final int KEPT = 48;
    private static final int HEADER = 3 * 8 + 2;
    private static final int ENTRY = 1 + 1 + 8 + 8; // beside the item id

    private Row() {}

    /** Returns the row with the event folded in, null when it is a resend. */
    static byte[] fold(byte[] row, Event e) {
        ByteBuffer old = ByteBuffer.wrap(row == null ? new byte[HEADER] : row);
        int hashes = old.get(24);
        int entries = old.get(25);
        long hash = e.hash();
        for (int i = 0; i < hashes; i++) {
            if (old.getLong(HEADER + 8 * i) == hash) {
                return null;
            }
        }
        int dropHash = hashes == KEPT ? 1 : 0;
        int from = HEADER + 8 * hashes;
        int dropped = entries == KEPT ? ENTRY + (old.get(from) & 0xff) : 0;
        byte[] item = e.item.getBytes(StandardCharsets.UTF_8);
        int kept = old.capacity() - from - dropped;

        ByteBuffer out = ByteBuffer.allocate(HEADER + 8 * (hashes - dropHash + 1) + kept + ENTRY + item.length);
        boolean positive = e.positive();
        out.putLong(old.getLong(0) + 1);
        out.putLong(old.getLong(8) + (positive ? 1 : 0));
        out.putLong(old.getLong(16) + (positive ? 0 : 1));
        out.put((byte) (hashes - dropHash + 1));
        out.put((byte) (dropped > 0 ? KEPT : entries + 1));
        out.put(old.array(), HEADER + 8 * dropHash, 8 * (hashes - dropHash));
        out.putLong(hash);
        out.put(old.array(), from + dropped, kept);
        out.put((byte) item.length).put(item).put(e.kind).putDouble(e.value).putLong(e.occurredAt);
        return out.array();
    }
}
