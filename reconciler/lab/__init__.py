"""A cluster of namespaces on one machine: for learning, for tests, for trying a policy repository before it counts."""
