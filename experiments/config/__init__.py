"""What a run is, and the paper's own numbers; nothing here loads JAX."""
