"""Counts the instructions of a training step on a Raspberry Pi's processor, without a Raspberry Pi."""
