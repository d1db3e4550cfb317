"""A converted TFLite file as bytes and as a graph that can be edited: come here to change how a file lies on disk."""
