"""A practice, for the demo, for tests and for whoever connects a system: real eAU, real KIM mail, real SMTP and POP3.

`documents` makes valid sick notes, `mailing` signs and encrypts them, `faults` breaks one thing at a time,
`transport` sends and fetches, `ledger` remembers what was sent until its receipt or its error is there.
"""
