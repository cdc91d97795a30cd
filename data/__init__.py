"""Files become typed batches. Knows formats, splits and units; never models."""
