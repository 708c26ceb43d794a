import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import sun.misc.Signal;
import sun.misc.SignalHandler;

/**
 * The loop of a Java context: waits for "go", has the session run the order, says what came of it.
 *
 * <p>User code shares this virtual machine. What is a result or an error goes to the channel,
 * everything else is written by user code itself. An interrupt is a line on the alarm, which names
 * the order that it is for. The SIGINT that comes with it is for child processes.
 */
final class Loop implements SignalHandler, Runnable {
    private final Channel channel;
    private final Path order;
    private final Channel alarm;
    private final Session session;
    private final Surroundings surroundings = new Surroundings();
    private final Streams streams = new Streams();

    private Loop(Channel channel, Path order, Channel alarm) {
        this.channel = channel;
        this.order = order;
        this.alarm = alarm;
        this.session = new Session(channel);
    }

    /** Serves until the driver is gone; gets the descriptors of channel, order and alarm. */
    public static void main(String[] arguments) throws ReflectiveOperationException, IOException {
        Channel channel = new Channel(Integer.parseInt(arguments[0]));
        Channel alarm = new Channel(Integer.parseInt(arguments[2]));
        Loop loop = new Loop(channel, Path.of("/dev/fd/" + arguments[1]), alarm);
        Signal.handle(new Signal("INT"), loop);
        Thread guard = new Thread(loop, "guard");
        guard.setDaemon(true);
        guard.start();
        String line = channel.readLine();
        while (line != null) {
            if (line.equals("go")) {
                loop.execute();
            }
            line = channel.readLine();
        }
        // No shutdown hooks of user code: nobody is there to see what they do.
        Runtime.getRuntime().halt(0);
    }

    /** Nothing: were the signal ignored instead, child processes would ignore it, too. */
    @Override
    public void handle(Signal signal) {}

    /** Watches the alarm. */
    @Override
    public void run() {
        try {
            String line = alarm.readLine();
            while (line != null) {
                session.interrupt(Long.parseLong(line.substring(line.indexOf(' ') + 1)));
                line = alarm.readLine();
            }
        } catch (IOException | NumberFormatException error) {
            // User code can close or fill it; then it is killed instead of interrupted.
        }
    }

    private void execute() throws IOException {
        String[] fields = readFields();
        int count = Integer.parseInt(fields[1]);
        Map<String, String> variables = new LinkedHashMap<>();
        for (int at = 2; at < 2 + count; at++) {
            int middle = fields[at].indexOf('=');
            variables.put(fields[at].substring(0, middle), fields[at].substring(middle + 1));
        }
        surroundings.enter(fields[0], variables);
        session.begin();
        channel.say("{\"type\":\"begun\"}");
        String status = session.run(fields[2 + count]);
        surroundings.leave();
        if (status.equals("interrupted")) {
            streams.renew();
        }
        System.out.flush();
        System.err.flush();
        channel.say("{\"type\":\"done\",\"status\":\"" + status + "\",\"exit_code\":null}");
    }

    /** Gives what fields.py wrote: directory, number of variables, each of them, code. */
    private String[] readFields() throws IOException {
        String text = new String(Files.readAllBytes(order), StandardCharsets.UTF_8);
        int first = text.indexOf('\0');
        int second = text.indexOf('\0', first + 1);
        int count = Integer.parseInt(text.substring(first + 1, second));
        return text.split("\0", count + 3);
    }
}
