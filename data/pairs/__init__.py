"""Collections of items of two modalities that belong together, and how each is asked about the other."""
