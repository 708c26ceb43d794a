"""Between the engine and the wire, without I/O: one module for each surface."""
