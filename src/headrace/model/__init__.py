"""The vocabulary of the project: plain frozen dataclasses without I/O."""
