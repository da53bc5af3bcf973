"""Fit a network: losses, sample stream, schedule, checkpoints, the loop."""
