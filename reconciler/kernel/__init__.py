"""The live kernel as tables: what netlink, procfs and bpf(2) hold for us."""
