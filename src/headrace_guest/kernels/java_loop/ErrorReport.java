import java.io.IOException;
import java.util.Locale;
import jdk.jshell.DeclarationSnippet;
import jdk.jshell.Diag;
import jdk.jshell.EvalException;
import jdk.jshell.JShell;
import jdk.jshell.JShellException;
import jdk.jshell.Snippet;
import jdk.jshell.UnresolvedReferenceException;

/**
 * Tells what went wrong with a snippet, with its place in the code that the snippet was cut from.
 *
 * <p>In all methods {@code start} is where in the code the snippet begins.
 */
final class ErrorReport {
    private static final int MAX_PLACES = 40;

    private final Channel channel;
    private final JShell shell;

    ErrorReport(Channel channel, JShell shell) {
        this.channel = channel;
        this.shell = shell;
    }

    /** Tells why a snippet was rejected: no syntax, or it does not compile. */
    void sendDiagnostics(Snippet snippet, String code, int start) throws IOException {
        String name = snippet.kind() == Snippet.Kind.ERRONEOUS ? "SyntaxError" : "CompileError";
        String value = "";
        StringBuilder all = new StringBuilder(name).append(": ");
        for (Object found : shell.diagnostics(snippet).toArray()) {
            Diag diagnostic = (Diag) found;
            if (diagnostic.isError()) {
                long position = start + diagnostic.getPosition();
                int at = (int) Math.max(0, Math.min(code.length(), position));
                String told = describe(code, at, messageOf(diagnostic));
                value = value.isEmpty() ? told.substring(0, told.indexOf('\n')) : value;
                all.append(told);
            }
        }
        channel.sendError(name, value, all.toString());
    }

    /** Tells of the one mistake that JShell does not tell. */
    void sendOpenComment(String code, int start) throws IOException {
        String told = describe(code, start, "unterminated comment");
        String value = told.substring(0, told.indexOf('\n'));
        channel.sendError("SyntaxError", value, "SyntaxError: " + told);
    }

    /** Gives a message with its place and, below, the line with a mark. */
    private static String describe(String code, int at, String message) {
        int lineStart = code.lastIndexOf('\n', at - 1) + 1;
        int lineEnd = code.indexOf('\n', at);
        String line = code.substring(lineStart, lineEnd < 0 ? code.length() : lineEnd);
        return "line " + lineOf(code, at) + ", column " + (at - lineStart + 1) + ": " + message
                + '\n' + line + '\n' + " ".repeat(at - lineStart) + "^\n";
    }

    /** Gives a message of the compiler in one line, without the class that JShell puts around. */
    private static String messageOf(Diag diagnostic) {
        StringBuilder text = new StringBuilder();
        for (String line : diagnostic.getMessage(Locale.ENGLISH).split("\n")) {
            String part = line.strip().replaceAll(" +", " ");
            if (!part.isEmpty() && !part.equals("location: class")) {
                text.append(text.length() > 0 ? ", " : "").append(part);
            }
        }
        return text.toString();
    }

    private static int lineOf(String code, int position) {
        int line = 1;
        for (int at = 0; at < position; at++) {
            if (code.charAt(at) == '\n') {
                line++;
            }
        }
        return line;
    }

    /** Tells of an exception that user code did not catch, with its causes. */
    void sendException(JShellException exception, Snippet snippet, String code, int start)
            throws IOException {
        if (exception instanceof UnresolvedReferenceException) {
            sendUnresolved(((UnresolvedReferenceException) exception).getSnippet());
            return;
        }
        StringBuilder trace = new StringBuilder();
        Throwable error = exception;
        while (error instanceof EvalException) {
            trace.append(trace.length() > 0 ? "Caused by: " : "");
            trace.append(nameOf(error));
            trace.append(error.getMessage() == null ? "" : ": " + error.getMessage()).append('\n');
            appendPlaces(trace, error.getStackTrace(), "#" + snippet.id(), lineOf(code, start));
            error = error.getCause();
        }
        String message = exception.getMessage();
        channel.sendError(nameOf(exception), message == null ? "" : message, trace.toString());
    }

    private void sendUnresolved(DeclarationSnippet snippet) throws IOException {
        StringBuilder text = new StringBuilder(snippet.name());
        text.append(" needs what is not declared: ");
        String separator = "";
        for (Object name : shell.unresolvedDependencies(snippet).toArray()) {
            text.append(separator).append(name);
            separator = ", ";
        }
        String name = "UnresolvedReferenceException";
        channel.sendError(name, text.toString(), name + ": " + text);
    }

    private static String nameOf(Throwable error) {
        String name = error instanceof EvalException
                ? ((EvalException) error).getExceptionClassName()
                : error.getClass().getName();
        return plain(name);
    }

    /** Hides the class that JShell puts around a declaration. */
    private static String plain(String name) {
        return name.replaceAll("REPL\\.\\$JShell\\$[0-9A-Z]+[.$]", "");
    }

    /**
     * Adds the places of a stack. In the snippet that ran ({@code current}) they are lines of the
     * code, in former ones lines of those.
     */
    private static void appendPlaces(
            StringBuilder trace, StackTraceElement[] places, String current, int firstLine) {
        for (int at = 0; at < places.length; at++) {
            if (at == MAX_PLACES) {
                trace.append("    ... ").append(places.length - at).append(" more\n");
                return;
            }
            StackTraceElement place = places[at];
            int line = place.getLineNumber();
            String where = place.getFileName() + (line < 0 ? "" : ":" + line);
            if (current.equals(place.getFileName())) {
                where = "line " + (firstLine + line - 1);
            }
            String type = place.getClassName().isEmpty() ? "" : plain(place.getClassName()) + ".";
            trace.append("    at ").append(type).append(place.getMethodName());
            trace.append('(').append(where).append(")\n");
        }
    }
}
