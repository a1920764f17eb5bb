"""A snapshot and facts as the rows that one host should hold: pure, no I/O, no clock, no randomness."""
