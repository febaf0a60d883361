"""The version, apart from the package's entry points, so that every layer may name it."""

__version__ = "0.2.0"
