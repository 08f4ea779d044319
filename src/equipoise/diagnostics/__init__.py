"""Diagnostics: what a trained model leans on, and what it can do without."""
