import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodType;
import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import sun.misc.Unsafe;

/**
 * Three functions of the C library, called through jdk.incubator.foreign of Java 17.
 *
 * <p>The module is loaded on first use, without the warning that --add-modules writes. A Java that
 * does not have it leaves the process as it is.
 */
final class Native {
    private final Unsafe memory;
    private final MethodHandle chdir;
    private final MethodHandle setenv;
    private final MethodHandle unsetenv;

    /** Where the functions cannot be had: nothing is changed. */
    private Native(Unsafe memory) {
        this.memory = memory;
        chdir = null;
        setenv = null;
        unsetenv = null;
    }

    private Native() throws ReflectiveOperationException {
        Field field = Unsafe.class.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        memory = (Unsafe) field.get(null);
        Method allow = Module.class.getDeclaredMethod("implAddEnableNativeAccessAllUnnamed");
        allow.setAccessible(true);
        allow.invoke(null);
        Class.forName("jdk.internal.module.Modules")
                .getMethod("loadModule", String.class)
                .invoke(null, "jdk.incubator.foreign");
        chdir = find("chdir", "C_LONG");
        setenv = find("setenv", "C_LONG", "C_LONG", "C_INT");
        unsetenv = find("unsetenv", "C_LONG");
    }

    static Native find() {
        try {
            return new Native();
        } catch (ReflectiveOperationException | RuntimeException | LinkageError error) {
            return new Native(null);
        }
    }

    private static Class<?> type(String name) throws ClassNotFoundException {
        return Class.forName("jdk.incubator.foreign." + name);
    }

    /** Gives a function that returns an int; addresses are passed as longs. */
    private static MethodHandle find(String name, String... parameters)
            throws ReflectiveOperationException {
        Class<?> linker = type("CLinker");
        Object layouts = Array.newInstance(type("MemoryLayout"), parameters.length);
        Class<?>[] carriers = new Class<?>[parameters.length];
        for (int at = 0; at < parameters.length; at++) {
            Array.set(layouts, at, linker.getField(parameters[at]).get(null));
            carriers[at] = parameters[at].equals("C_INT") ? int.class : long.class;
        }
        Object function = type("FunctionDescriptor")
                .getMethod("of", type("MemoryLayout"), layouts.getClass())
                .invoke(null, linker.getField("C_INT").get(null), layouts);
        Object library = linker.getMethod("systemLookup").invoke(null);
        Optional<?> symbol = (Optional<?>) type("SymbolLookup")
                .getMethod("lookup", String.class)
                .invoke(library, name);
        Object self = linker.getMethod("getInstance").invoke(null);
        MethodType carried = MethodType.methodType(int.class, carriers);
        return (MethodHandle) linker
                .getMethod("downcallHandle", type("Addressable"), MethodType.class,
                        type("FunctionDescriptor"))
                .invoke(self, symbol.get(), carried, function);
    }

    /** Enters a directory; false if that could not be done. */
    boolean changeDirectory(String path) {
        return chdir != null && call(chdir, path) == 0;
    }

    /** Sets a variable of the process, or removes it. */
    void setVariable(String name, String value) {
        if (setenv == null) {
            return;
        }
        if (value == null) {
            call(unsetenv, name);
            return;
        }
        long text = copy(value);
        call(setenv, name, text, 1);
        memory.freeMemory(text);
    }

    private int call(MethodHandle function, String first, Object... others) {
        long text = copy(first);
        Object[] arguments = new Object[others.length + 1];
        arguments[0] = text;
        System.arraycopy(others, 0, arguments, 1, others.length);
        try {
            return (int) function.invokeWithArguments(arguments);
        } catch (Throwable error) {
            throw new IllegalStateException(error);
        } finally {
            memory.freeMemory(text);
        }
    }

    private long copy(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        long address = memory.allocateMemory(bytes.length + 1L);
        for (int at = 0; at < bytes.length; at++) {
            memory.putByte(address + at, bytes[at]);
        }
        memory.putByte(address + bytes.length, (byte) 0);
        return address;
    }
}
