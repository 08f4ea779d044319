"""Clips and a label file to a dataset: many clips side by side, resumable, with a report of what could not be used."""
