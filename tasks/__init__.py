"""Tasks turn what was read into a decision and an honest number."""
