"""Fits of one matrix: from its weights, and what their errors count, to a packed factor. Passes decide what is fitted."""
