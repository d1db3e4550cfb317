"""Rewritings of a converted file, one a module: come here to make files faster or smaller."""
