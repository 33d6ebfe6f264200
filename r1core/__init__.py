"""r1core adapts a language model to a professional domain; everything domain-specific is a plugin."""

__version__ = "0.1.0"
