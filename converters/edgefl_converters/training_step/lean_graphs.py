"""Graphs that are made to be read, or run a few times, without notes of where in Python each of their ops is made.

TensorFlow walks the stack of calls for every op that it adds to a graph, which takes a twentieth of the time of making
it, Keras's calls being many on top of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.util import tf_stack

__all__ = ["lean_graphs"]


@contextmanager
def lean_graphs() -> Iterator[None]:
    """Lets all ops that are made inside have the stack of calls of here."""
    original = tf_stack.extract_stack
    here = original()
    tf_stack.extract_stack = lambda stacklevel=1: here
    try:
        yield
    finally:
        tf_stack.extract_stack = original
