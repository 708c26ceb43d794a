"""Our version, without importing the package itself, which would bring the SDK along."""

from importlib.metadata import version

VERSION = version("headrace")
