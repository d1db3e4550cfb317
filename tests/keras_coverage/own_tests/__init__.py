"""The layers that Keras's own tests try, taken from a checkout of Keras: do those that Keras trains convert?"""
