"""Closing at once, by one, and proving it (incident.md § 5): orders, policies, proofs, drills, external systems.

Knows scopes and the switch, and no service: it works when they do not (SW-05). It does not know `restart` either.
"""
