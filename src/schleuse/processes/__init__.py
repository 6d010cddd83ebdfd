"""What runs, and from what: one file per process, each the wiring of its parts and nothing else.

`supervisor` starts the others (`schleuse up`); `observe` gives each its log, metrics and health.
"""
