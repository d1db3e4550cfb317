"""How outcomes become new weights: pure state machines and strategies."""
