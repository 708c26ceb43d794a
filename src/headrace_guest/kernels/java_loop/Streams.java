import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/**
 * The standard streams of user code.
 *
 * <p>A print that an interrupt stops, which is when its system call returns, would come once more:
 * the JDK's classes empty their buffers only then. What is below keeps nothing that was written, and
 * what is above is replaced after an interrupt.
 */
final class Streams {
    private final OutputStream outEnd = new Unrepeated(FileDescriptor.out);
    private final OutputStream errEnd = new Unrepeated(FileDescriptor.err);
    private PrintStream out;
    private PrintStream err;

    /** Gives user code its streams. */
    Streams() {
        out = print(outEnd);
        err = print(errEnd);
        System.setOut(out);
        System.setErr(err);
    }

    /** Replaces those that user code has not replaced itself. */
    void renew() {
        if (System.out == out) {
            out = print(outEnd);
            System.setOut(out);
        }
        if (System.err == err) {
            err = print(errEnd);
            System.setErr(err);
        }
    }

    private static PrintStream print(OutputStream end) {
        return new PrintStream(end, true, StandardCharsets.UTF_8);
    }

    /** Collects single bytes, as the JDK does, and forgets what it has before that is written. */
    private static final class Unrepeated extends OutputStream {
        private final FileOutputStream file;
        private final byte[] waiting = new byte[1024];
        private int count;

        Unrepeated(FileDescriptor descriptor) {
            file = new FileOutputStream(descriptor);
        }

        @Override
        public synchronized void write(int value) throws IOException {
            if (count == waiting.length) {
                flush();
            }
            waiting[count++] = (byte) value;
        }

        @Override
        public synchronized void write(byte[] data, int start, int length) throws IOException {
            flush();
            file.write(data, start, length);
        }

        @Override
        public synchronized void flush() throws IOException {
            int size = count;
            count = 0;
            if (size > 0) {
                file.write(waiting, 0, size);
            }
        }

        @Override
        public void close() throws IOException {
            flush();
            file.close();
        }
    }
}
