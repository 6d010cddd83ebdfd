"""Mail on the wire: SMTP in and out, POP3, DSN, S/MIME (RFC 5321, 1939, 3461-3464, 5652, 5083).

Knows mail and no KIM: who may send to whom, where a mail is kept and what it means come in through
`contracts`. Talks to nobody above it; `kim` stores what arrives, `processes` wires the two.
"""
