"""Self-supervised training, from scratch or further, with and without the Q-Score regulariser."""
