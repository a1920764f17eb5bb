"""Signs of life, as both sides of the socket know them: who waits can tell a daemon at work from one that hangs.

A request with the header `Heartbeat` gets `100 Continue` at once and every second until its answer begins (RFC 9110,
15.2: a client passes over any number of interim responses), then a NUL every second among the pieces of a stream.
"""

HEADER = "Heartbeat"
EVERY_S = 1.0
SILENCE_S = 4.0  # after which a client takes the daemon for hung
LONGEST_ANSWER_S = 600.0  # until it begins; where the writer thread hangs, nothing beats any longer
STREAM_SIGN = b"\0"
