"""One TensorFlow graph emitted again in builtin ops: come here to let a model use one more op."""
