"""What hosts share: one small key-value protocol, its implementations, and what is allocated through it."""
