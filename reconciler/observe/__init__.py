"""Events out of the kernel: flows and drops, drift and who caused it, and what an operator asks the kernel for."""
