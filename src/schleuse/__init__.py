"""Schleuse: exchange services of statutory health insurers, built for the day they are attacked.

Start with docs/tour.md (the life of an eAU); each package's docstring says what it is and who talks to it.
"""

__version__ = "0.1.0"
