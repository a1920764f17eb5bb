"""Frozen values that every room shares: no I/O, no behaviour beyond their own meaning."""
