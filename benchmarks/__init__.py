"""Measurements, run from a clone: each file checks first that what it times computes the same."""
