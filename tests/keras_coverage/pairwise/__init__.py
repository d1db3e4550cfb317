"""Pairs of settings of every class of Keras: see `arrays` for how they are chosen, `trials` for what is done."""
