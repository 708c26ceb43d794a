import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import jdk.jshell.JShell;
import jdk.jshell.Snippet;
import jdk.jshell.SnippetEvent;
import jdk.jshell.SourceCodeAnalysis;
import jdk.jshell.spi.ExecutionControl;
import jdk.jshell.spi.ExecutionControlProvider;
import jdk.jshell.spi.ExecutionEnv;

/** A JShell with its state: cuts code into snippets, runs them, tells values and errors. */
final class Session implements ExecutionControlProvider {
    private static final String[] IMPORTS = {
        "java.io", "java.math", "java.net", "java.nio.file", "java.util", "java.util.concurrent",
        "java.util.function", "java.util.prefs", "java.util.regex", "java.util.stream",
    };
    private static final int STOP_AGAIN_MS = 50;

    private final Channel channel;
    private final Control control = new Control();
    private final JShell shell;
    private final SourceCodeAnalysis analysis;
    private final ErrorReport report;
    /** The number of the running execution, as the driver counts them; 0 for none. */
    private volatile long running;
    private volatile long interrupted;
    private long count;
    private String code;

    Session(Channel channel) {
        this.channel = channel;
        shell = JShell.builder().executionEngine(this, Map.of()).build();
        analysis = shell.sourceCodeAnalysis();
        report = new ErrorReport(channel, shell);
        for (String name : IMPORTS) {
            shell.eval("import " + name + ".*;");
        }
    }

    @Override
    public String name() {
        return "headrace";
    }

    @Override
    public ExecutionControl generate(ExecutionEnv env, Map<String, String> parameters) {
        return control;
    }

    /** From here on an interrupt is for the code that comes next. */
    void begin() {
        count++;
        running = count;
    }

    /** Stops an execution if it runs, again and again until it has ended; called by the guard. */
    void interrupt(long stopped) {
        interrupted = stopped;
        while (stopIfRunning(stopped)) {
            try {
                Thread.sleep(STOP_AGAIN_MS);
            } catch (InterruptedException error) {
                return;
            }
        }
    }

    private synchronized boolean stopIfRunning(long stopped) {
        if (stopped == 0 || stopped != running) {
            return false;
        }
        try {
            control.stop();
            return true;
        } catch (ExecutionControl.ExecutionControlException error) {
            return false;
        }
    }

    /** From here on an interrupt finds nothing to stop. */
    private synchronized void end() {
        running = 0;
        control.allow();
    }

    /** Runs code and gives the status of its end. */
    String run(String text) throws IOException {
        code = text;
        String status;
        try {
            status = runSnippets() ? "ok" : "error";
        } catch (RuntimeException | Error error) {
            String name = error.getClass().getName();
            channel.sendError(name, String.valueOf(error.getMessage()), error.toString());
            status = "error";
        }
        end();
        return interrupted == count ? "interrupted" : status;
    }

    private boolean runSnippets() throws IOException {
        List<Piece> pieces = new ArrayList<>();
        if (!cut(pieces)) {
            return false;
        }
        for (int at = 0; at < pieces.size() && !isInterrupted(); at++) {
            if (!runSnippet(pieces.get(at), at == pieces.size() - 1)) {
                return false;
            }
        }
        return true;
    }

    private static final class Piece {
        final int start;
        final String source;

        Piece(int start, String source) {
            this.start = start;
            this.source = source;
        }
    }

    /** Cuts the code; if some of it is not even syntax, tells that, and nothing runs. */
    private boolean cut(List<Piece> pieces) throws IOException {
        int end = 0;
        while (true) {
            // JShell counts the lines of a snippet from its first word.
            int start = skipBlank(end);
            String rest = code.substring(start);
            SourceCodeAnalysis.CompletionInfo info = analysis.analyzeCompletion(rest);
            switch (info.completeness()) {
                case EMPTY:
                    return true;
                case COMPLETE:
                    pieces.add(new Piece(start, info.source()));
                    end = start + info.source().length();
                    break;
                case COMPLETE_WITH_SEMI:
                    pieces.add(new Piece(start, info.source()));
                    end = start + info.source().length() - 1;
                    break;
                case CONSIDERED_INCOMPLETE:
                    pieces.add(new Piece(start, rest + ";"));
                    return true;
                default:
                    if (hasOpenComment(rest)) {
                        report.sendOpenComment(code, start + rest.lastIndexOf("/*"));
                        return false;
                    }
                    // JShell refuses such a snippet and says why.
                    return runSnippet(new Piece(start, rest), true);
            }
        }
    }

    /** Tells whether the end of a comment is all that is missing; JShell would leave it away. */
    private boolean hasOpenComment(String rest) {
        switch (analysis.analyzeCompletion(rest + "*/").completeness()) {
            case UNKNOWN:
            case DEFINITELY_INCOMPLETE:
                return false;
            default:
                return rest.contains("/*");
        }
    }

    /** Gives where the next word is, behind white space and comments. */
    private int skipBlank(int start) {
        int at = start;
        while (at < code.length()) {
            int end = at;
            if (Character.isWhitespace(code.charAt(at))) {
                end = at + 1;
            } else if (code.startsWith("//", at)) {
                end = code.indexOf('\n', at);
            } else if (code.startsWith("/*", at)) {
                int close = code.indexOf("*/", at + 2);
                end = close < 0 ? at : close + 2;
            }
            if (end < 0) {
                return code.length();
            }
            if (end == at) {
                return at;
            }
            at = end;
        }
        return at;
    }

    private boolean runSnippet(Piece piece, boolean isLast) throws IOException {
        control.wantsValue = isLast;
        control.longValue = null;
        for (SnippetEvent event : shell.eval(piece.source)) {
            if (event.causeSnippet() != null) {
                continue;
            }
            Snippet snippet = event.snippet();
            if (event.status() == Snippet.Status.REJECTED) {
                report.sendDiagnostics(snippet, code, piece.start);
                return false;
            }
            if (event.exception() != null) {
                report.sendException(event.exception(), snippet, code, piece.start);
                return false;
            }
            if (isLast && !isInterrupted()) {
                sendValue(snippet, event.value());
            }
        }
        return true;
    }

    private boolean isInterrupted() {
        return interrupted == count;
    }

    private void sendValue(Snippet snippet, String value) throws IOException {
        Snippet.SubKind kind = snippet.subKind();
        // A declaration of a variable has a value for JShell, but is no expression.
        boolean isExpression = snippet.kind() == Snippet.Kind.EXPRESSION
                || kind == Snippet.SubKind.TEMP_VAR_EXPRESSION_SUBKIND;
        String text = control.longValue != null ? control.longValue : value;
        if (isExpression && kind.hasValue() && text != null) {
            channel.sendResult(text);
        }
    }
}
