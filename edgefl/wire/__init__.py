"""The binary messages of the protocol and the readers that were generated from their schemas."""
