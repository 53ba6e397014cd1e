"""References of the operators in PyTorch: a module for each format, found by its name, whose REFERENCES has each of its operators.

The implementations decode a factor to float32 and compute in float; `int8` compute quantises the activations first, so that results
equal the kernels' up to float rounding. They are references, not fast paths: speed is the runtimes' business.
"""
