"""Tokens read one another: the shared cross-attention fusion core."""
