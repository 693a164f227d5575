"""The mathematics: one function per operation, arrays in, ``(output, vjps)`` out.

An operation knows arrays, not tensors. It returns its output and one *vector–Jacobian product* per
array input: a function that takes ``g``, the gradient of the loss by the output, and gives the
gradient by that input. The engine (``graph.py``) calls only those that are needed and undoes
broadcasting, so a file of operations reads like a table of derivatives.

Start with ``elementwise.py``; ``conv.py`` is the largest idea.
"""
