"""What a trained encoder is worth to a network that learns from few labels."""
