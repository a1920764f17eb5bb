"""What kernel and datapath both stand on: bpf(2), libbpf and the types that BTF describes. No policy, no rows."""
