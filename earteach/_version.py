"""The version, in a module that imports nothing, so that any other may import it."""

__version__ = "2.0.0"
