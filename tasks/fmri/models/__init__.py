"""Cross-subject brain decoding: adapters, a shared trunk, tokens of what was seen, and what they are trained with."""
