"""Reads models where they come from: files, folders, and functions of modules: come here to read one more format."""
