"""Verdicts on flows that nobody sent, and the rules behind them: out of compiled rows, or out of the kernel."""
