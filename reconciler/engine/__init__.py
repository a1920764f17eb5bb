"""Comparing rows and writing the difference as one transaction: knows no BPF, no netlink, no policy."""
