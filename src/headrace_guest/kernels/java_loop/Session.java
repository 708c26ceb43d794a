import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import jdk.jshell.DeclarationSnippet;
import jdk.jshell.Diag;
import jdk.jshell.EvalException;
import jdk.jshell.JShell;
import jdk.jshell.JShellException;
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
    /** The running execution; 0 for none. */
    private volatile long running;
    private volatile long interrupted;
    private long count;
    private String code;

    Session(Channel channel) {
        this.channel = channel;
        shell = JShell.builder().executionEngine(this, Map.of()).build();
        analysis = shell.sourceCodeAnalysis();
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

    /** Stops what runs, again and again until it has ended; called in another thread. */
    void interrupt() {
        long stopped = running;
        interrupted = stopped;
        while (stopped != 0 && stopped == running) {
            try {
                control.stop();
                Thread.sleep(STOP_AGAIN_MS);
            } catch (Exception error) {
                return;
            }
        }
    }

    /** Runs code and gives the status of its end. */
    String run(String text) throws IOException {
        code = text;
        String status;
        try {
            status = runSnippets() ? "ok" : "error";
        } catch (RuntimeException | Error error) {
            channel.sendError(error.getClass().getName(), String.valueOf(error.getMessage()), error.toString());
            status = "error";
        }
        running = 0;
        // An interrupt that comes now finds nothing, one that came before does its last stop.
        control.allow();
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
        String rest = code;
        while (true) {
            int start = code.length() - rest.length();
            SourceCodeAnalysis.CompletionInfo info = analysis.analyzeCompletion(rest);
            switch (info.completeness()) {
                case EMPTY:
                    return true;
                case COMPLETE:
                case COMPLETE_WITH_SEMI:
                    pieces.add(new Piece(start, info.source()));
                    rest = info.remaining();
                    break;
                case CONSIDERED_INCOMPLETE:
                    pieces.add(new Piece(start, rest + ";"));
                    return true;
                default:
                    // JShell refuses such a snippet and says why.
                    return runSnippet(new Piece(start, rest), true);
            }
        }
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
                sendDiagnostics(snippet, piece);
                return false;
            }
            if (event.exception() != null) {
                sendException(event.exception(), snippet, piece);
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

    // --- errors -----------------------------------------------------------------------------

    private void sendDiagnostics(Snippet snippet, Piece piece) throws IOException {
        String name = snippet.kind() == Snippet.Kind.ERRONEOUS ? "SyntaxError" : "CompileError";
        String first = "";
        StringBuilder all = new StringBuilder(name).append(": ");
        for (Object found : shell.diagnostics(snippet).toArray()) {
            Diag diagnostic = (Diag) found;
            if (!diagnostic.isError()) {
                continue;
            }
            String told = describe(diagnostic, piece);
            if (first.isEmpty()) {
                first = told.substring(0, told.indexOf('\n'));
            }
            all.append(told);
        }
        channel.sendError(name, first, all.toString());
    }

    /** Gives the message with its place in the code, and the line with a mark below it. */
    private String describe(Diag diagnostic, Piece piece) {
        int at = (int) Math.max(0, Math.min(code.length(), piece.start + diagnostic.getPosition()));
        int start = code.lastIndexOf('\n', at - 1) + 1;
        int end = code.indexOf('\n', at);
        String line = code.substring(start, end < 0 ? code.length() : end);
        String message = diagnostic.getMessage(Locale.ENGLISH).replace('\n', ' ');
        return "line " + lineOf(at) + ", column " + (at - start + 1) + ": " + message + '\n'
                + line + '\n' + " ".repeat(at - start) + "^\n";
    }

    private int lineOf(int position) {
        int line = 1;
        for (int at = 0; at < position; at++) {
            if (code.charAt(at) == '\n') {
                line++;
            }
        }
        return line;
    }

    private void sendException(JShellException exception, Snippet snippet, Piece piece)
            throws IOException {
        if (!(exception instanceof EvalException)) {
            String message = unresolved(snippet);
            channel.sendError("UnresolvedReferenceException", message, "UnresolvedReferenceException: " + message);
            return;
        }
        StringBuilder trace = new StringBuilder();
        Throwable error = exception;
        while (error instanceof EvalException) {
            trace.append(trace.length() > 0 ? "Caused by: " : "").append(headline((EvalException) error));
            for (StackTraceElement place : error.getStackTrace()) {
                trace.append("    at ").append(placeText(place, snippet, piece)).append('\n');
            }
            error = error.getCause();
        }
        EvalException first = (EvalException) exception;
        String message = first.getMessage();
        channel.sendError(plain(first.getExceptionClassName()), message == null ? "" : message, trace.toString());
    }

    private static String headline(EvalException error) {
        String message = error.getMessage();
        return plain(error.getExceptionClassName()) + (message == null ? "" : ": " + message) + '\n';
    }

    /** Hides the class that JShell puts around a declaration. */
    private static String plain(String name) {
        return name.replaceAll("REPL\\.\\$JShell\\$[0-9A-Z]+[.$]", "");
    }

    /** Gives a place; of the snippet that ran it is a line of the code, of former ones their own. */
    private String placeText(StackTraceElement place, Snippet snippet, Piece piece) {
        String method = plain(place.getClassName() + (place.getClassName().isEmpty() ? "" : "."))
                + place.getMethodName();
        String file = place.getFileName();
        if (("#" + snippet.id()).equals(file)) {
            return method + "(line " + (lineOf(piece.start) + place.getLineNumber() - 1) + ")";
        }
        return method + "(" + file + (place.getLineNumber() < 0 ? "" : ":" + place.getLineNumber()) + ")";
    }

    private String unresolved(Snippet snippet) {
        StringBuilder names = new StringBuilder();
        if (snippet instanceof DeclarationSnippet) {
            for (Object name : shell.unresolvedDependencies((DeclarationSnippet) snippet).toArray()) {
                names.append(names.length() > 0 ? ", " : "").append(name);
            }
        }
        return "something that is not declared is needed: " + names;
    }
}
