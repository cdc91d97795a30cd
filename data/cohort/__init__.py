"""Patients, their outcomes, and what is known of each."""
