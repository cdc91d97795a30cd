"""Tensors in, tensors out: the compute core. Importing it does nothing; operators register in their own modules."""
