"""A small language model on Raspberry Pis: the roles of plays teach it to spell as they do, and no line leaves its device."""
