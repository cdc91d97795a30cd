"""One modality's batch becomes tokens."""
