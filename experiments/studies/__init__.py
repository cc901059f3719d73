"""Comparisons whose settings a validation split chose; each file's `STUDIES` says what it asks."""
