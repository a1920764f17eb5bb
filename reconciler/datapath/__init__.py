"""Building and loading the programs of `bpf/`, and finding out what this kernel can do."""
