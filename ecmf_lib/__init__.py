"""ECMF: multimodal emotion recognition with scores that can be trusted."""

__version__ = "0.1.0"
