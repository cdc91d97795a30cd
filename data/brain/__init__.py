"""Scans, events, betas and dissimilarities become `Brains`: samples by voxels of each subject, with runs."""
