"""Programs run on packets (BPF_PROG_TEST_RUN), and loading them."""
