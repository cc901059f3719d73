"""Adaptive Sharpness-Aware Minimization for JAX and Optax."""
