"""Kept, not refused: the states of an accepted mail and the proof that none is missing.

States and moves are those of incident.md § 6.2 and appendix A; the checker is `schleuse hold check`.
"""
