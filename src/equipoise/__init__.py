"""Balanced multimodal learning for PyTorch: the plug-in's public names."""

__version__ = "0.1.0"
