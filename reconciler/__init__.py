"""Plumbline: trues every Linux host to the commit that describes it."""

__version__ = "0.1.0"
