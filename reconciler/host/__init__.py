"""This host: its tables, its facts, and one pass over them. The daemon, the command line and Ansible all call it."""

from reconciler.host.host import Host

__all__ = ["Host"]
