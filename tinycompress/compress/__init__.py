"""What makes a network smaller: ``quantize``, ``prune``, ``distill``."""
