import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import jdk.jshell.execution.LocalExecutionControl;
import jdk.jshell.spi.ExecutionControl;

/**
 * Runs the compiled snippets of JShell in this virtual machine, each in a thread of its own that
 * can be stopped.
 *
 * <p>JShell's own class would wait for all threads that a snippet starts, such as those of a pool.
 */
@SuppressWarnings({"deprecation", "removal"})
final class Control extends LocalExecutionControl {
    private static final int LONG_TEXT = 64 * 1024;
    /** From Java 20 on threads cannot be stopped; JShell then makes loops look for a flag. */
    private static final boolean STOPS_THREADS = Runtime.version().feature() < 20;

    /** Whether the value of the next snippet is to be shown: making a text of it may take long. */
    volatile boolean wantsValue;
    /** The text of that value, if it is too long to give it to JShell, which would search it. */
    volatile String longValue;

    private Call running;
    private boolean isStopped;

    /** Lets code run again after an interrupt. */
    synchronized void allow() {
        isStopped = false;
    }

    /** Stops the running code and, until it is allowed again, what would run next. */
    @Override
    public void stop() throws EngineTerminationException, InternalException {
        Call call;
        synchronized (this) {
            isStopped = true;
            call = running;
        }
        if (call == null) {
            return;
        }
        if (STOPS_THREADS) {
            call.stop();
        } else {
            super.stop();
        }
    }

    @Override
    protected String invoke(Method snippet) throws Exception {
        if (!STOPS_THREADS) {
            return super.invoke(snippet);
        }
        Call call = new Call(snippet);
        synchronized (this) {
            if (isStopped) {
                throw new StoppedException();
            }
            running = call;
            call.start();
        }
        call.join();
        synchronized (this) {
            running = null;
            Throwable failure = call.failure;
            if (failure == null) {
                return call.text;
            }
            if (isStopped && failure instanceof ThreadDeath) {
                throw new StoppedException();
            }
            throw new InvocationTargetException(failure);
        }
    }

    private final class Call extends Thread {
        private final Method snippet;
        private String text = "";
        private Throwable failure;

        Call(Method snippet) {
            super("snippet");
            this.snippet = snippet;
        }

        @Override
        public void run() {
            try {
                Object value = snippet.invoke(null);
                if (wantsValue) {
                    String all = valueString(value);
                    boolean isLong = all.length() > LONG_TEXT;
                    longValue = isLong ? all : null;
                    text = isLong ? "" : all;
                }
            } catch (InvocationTargetException error) {
                failure = error.getCause();
            } catch (Throwable error) {
                failure = error;
            }
        }
    }
}
