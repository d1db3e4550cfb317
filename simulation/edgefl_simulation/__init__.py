"""Emulates a fleet on one machine with the trainer and the aggregation code of the real one."""
