"""Q-Score (Kalibhat et al., AAAI 2024): discriminative features, per-sample quality, failure prediction, regulariser."""
