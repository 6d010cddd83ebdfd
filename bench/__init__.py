"""Measurements beside the raw limits of the same run: `make bench` runs all, `python -m bench.NAME` one."""
