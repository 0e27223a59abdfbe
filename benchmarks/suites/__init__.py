"""What `python -m benchmarks` measures, one file each.

A suite is a function of the settings that yields rows; most are cases run by `measure`.
"""
