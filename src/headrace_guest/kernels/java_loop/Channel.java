import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;

/** The private channel to the driver: lines, both ways, over a descriptor that was inherited. */
final class Channel {
    private static final int MAX_LINE = 15 * 1024 * 1024;
    private static final int MAX_FORM = 8 * 1024 * 1024;
    private static final int MAX_TEXT = 256 * 1024;

    private final FileInputStream input;
    private final FileOutputStream output;

    Channel(int number) throws ReflectiveOperationException {
        FileDescriptor descriptor = new FileDescriptor();
        Field field = FileDescriptor.class.getDeclaredField("fd");
        field.setAccessible(true);
        field.setInt(descriptor, number);
        input = new FileInputStream(descriptor);
        output = new FileOutputStream(descriptor);
    }

    /** Gives the next line, which is short; null at the end. */
    String readLine() throws IOException {
        StringBuilder line = new StringBuilder();
        int next = input.read();
        while (next != '\n') {
            if (next < 0) {
                return null;
            }
            line.append((char) next);
            next = input.read();
        }
        return line.toString();
    }

    /** Writes one line of ASCII. */
    void say(String line) throws IOException {
        output.write((line + '\n').getBytes(StandardCharsets.US_ASCII));
    }

    /** Sends a value's text and waits until it has arrived; too long a text is only named. */
    void sendResult(String text) throws IOException {
        // A text that has too many characters is not copied to count its bytes.
        boolean isHuge = text.length() > MAX_LINE;
        int size = isHuge ? text.length() : text.getBytes(StandardCharsets.UTF_8).length;
        String form = size > MAX_FORM ? null : quote(text);
        String content = "\"bundle\":{},\"omitted\":{\"text/plain\":" + size + "}";
        if (form != null && form.length() <= MAX_LINE) {
            content = "\"bundle\":{\"text/plain\":" + form + "}";
        }
        say("{\"type\":\"result\"," + content + ",\"is_main\":true}");
        String line = readLine();
        while (line != null && !line.equals("ack")) {
            line = readLine();
        }
    }

    /** Tells of an exception, or of code that cannot be compiled. */
    void sendError(String name, String value, String traceback) throws IOException {
        say("{\"type\":\"error\",\"name\":" + quote(shorten(name, 1000))
                + ",\"value\":" + quote(shorten(value, MAX_TEXT))
                + ",\"traceback\":" + quote(shorten(traceback, 2 * MAX_TEXT)) + "}");
    }

    private static String shorten(String text, int size) {
        return text.length() <= size ? text : text.substring(0, size) + "...";
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder(text.length() + 16).append('"');
        for (int at = 0; at < text.length(); at++) {
            char letter = text.charAt(at);
            if (letter == '"' || letter == '\\') {
                quoted.append('\\').append(letter);
            } else if (letter >= ' ' && letter < 127) {
                quoted.append(letter);
            } else {
                quoted.append("\\u");
                for (int shift = 12; shift >= 0; shift -= 4) {
                    quoted.append(Character.forDigit(letter >> shift & 15, 16));
                }
            }
        }
        return quoted.append('"').toString();
    }
}
