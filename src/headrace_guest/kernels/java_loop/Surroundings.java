import java.io.File;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Variables and directory that hold for one execution only.
 *
 * <p>Java reads both once, when it starts. So they are changed where it keeps them and, as child
 * processes and the opening of files use them, in the process itself, if this Java can call C.
 * The variables are system properties, too, and so are those of the whole context.
 */
final class Surroundings {
    private final Map<String, String> formerVariables = new LinkedHashMap<>();
    private final Map<String, String> formerProperties = new LinkedHashMap<>();
    private String formerDirectory = "";
    private Map<String, String> variables;
    private Native calls;

    Surroundings() {
        for (Map.Entry<String, String> entry : System.getenv().entrySet()) {
            if (!entry.getKey().isEmpty() && System.getProperty(entry.getKey()) == null) {
                System.setProperty(entry.getKey(), entry.getValue());
            }
        }
    }

    void enter(String directory, Map<String, String> wanted) {
        for (Map.Entry<String, String> entry : wanted.entrySet()) {
            String name = entry.getKey();
            formerVariables.put(name, System.getenv(name));
            setVariable(name, entry.getValue());
            formerProperties.put(name, System.getProperty(name));
            setProperty(name, entry.getValue());
        }
        if (!directory.isEmpty()) {
            formerDirectory = System.getProperty("user.dir");
            setDirectory(directory);
        }
    }

    void leave() {
        for (Map.Entry<String, String> entry : formerVariables.entrySet()) {
            setVariable(entry.getKey(), entry.getValue());
        }
        for (Map.Entry<String, String> entry : formerProperties.entrySet()) {
            setProperty(entry.getKey(), entry.getValue());
        }
        if (!formerDirectory.isEmpty()) {
            setDirectory(formerDirectory);
        }
        formerVariables.clear();
        formerProperties.clear();
        formerDirectory = "";
    }

    private static void setProperty(String name, String value) {
        if (value == null) {
            System.clearProperty(name);
        } else {
            System.setProperty(name, value);
        }
    }

    private void setVariable(String name, String value) {
        try {
            if (variables == null) {
                variables = findVariables();
            }
            if (value == null) {
                variables.remove(name);
            } else {
                variables.put(name, value);
            }
        } catch (ReflectiveOperationException | RuntimeException error) {
            System.err.println("headrace: this Java does not let variables change: " + error);
        }
        if (calls == null) {
            calls = Native.find();
        }
        calls.setVariable(name, value);
    }

    /** Gives the map behind System.getenv, which checks names and values. */
    @SuppressWarnings("unchecked")
    private static Map<String, String> findVariables() throws ReflectiveOperationException {
        Class<?> owner = Class.forName("java.lang.ProcessEnvironment");
        Field field = owner.getDeclaredField("theEnvironment");
        field.setAccessible(true);
        Class<?> view = Class.forName("java.lang.ProcessEnvironment$StringEnvironment");
        Constructor<?> constructor = view.getDeclaredConstructor(Map.class);
        constructor.setAccessible(true);
        return (Map<String, String>) constructor.newInstance(field.get(null));
    }

    private void setDirectory(String directory) {
        System.setProperty("user.dir", directory);
        if (calls == null) {
            calls = Native.find();
        }
        boolean isEntered = calls.changeDirectory(directory);
        try {
            Field holder = File.class.getDeclaredField("fs");
            holder.setAccessible(true);
            set(holder.get(null), "userDir", directory);
            FileSystem files = FileSystems.getDefault();
            set(files, "defaultDirectory", directory.getBytes(StandardCharsets.UTF_8));
            set(files, "needToResolveAgainstDefaultDirectory", !isEntered);
        } catch (ReflectiveOperationException | RuntimeException error) {
            System.err.println("headrace: this Java does not let its directory change: " + error);
        }
    }

    private static void set(Object owner, String name, Object value)
            throws ReflectiveOperationException {
        Class<?> type = owner.getClass();
        while (type != null) {
            for (Field field : type.getDeclaredFields()) {
                if (field.getName().equals(name)) {
                    field.setAccessible(true);
                    field.set(owner, value);
                    return;
                }
            }
            type = type.getSuperclass();
        }
    }
}
