"""tinycompress: a deep-learning engine small enough to read, and what makes a network smaller."""

from tinycompress.random import manual_seed as manual_seed

__version__ = "0.1.0"
