"""Opening in stages, by two, with evidence (incident.md § 9): plans, stages, gates, approvals.

Nothing here opens anything by itself: what comes out is a command of the switch that two persons have signed.
"""
