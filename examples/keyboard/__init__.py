"""A small language model on Raspberry Pis: roles of plays teach it how they spell, and no line leaves its device."""
