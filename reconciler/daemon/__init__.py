"""What runs on every host: triggers, the loop that converges, and the API on a unix socket."""
