"""Grids of trainings, their results, the statistics over them, and the tables of papers."""
