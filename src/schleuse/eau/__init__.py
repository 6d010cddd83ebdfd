"""Sick notes coming in: eAU and Storno from practices, checked, filed once, and handed to the insurer's system.

Who talks to it: the `eau` role takes mail of the insurers' mailboxes under a lease, opens and checks it, and asks
`decision` what becomes of it; `store` keeps the answer in one transaction per batch; `outbox` sends
Fehlernachrichten; the insurer's own system reads the `feed`. Source: KBV Technische Anlage zur eAU 1.26 (eau.md).

    document          frozen facts read out of a checked document
    findings          what the stages found out about one mail
    outcome           what is known of a document, the operator's policy, and the closed set of outcomes
    decision, storno  from the ones to the other (pure)
    codes, versions   the error codes and the version matrix, as data
    fehlernachricht   the answer to a practice, as XML and as mail (pure)
    store, tables     all SQL;  feed  the HTTPS interface;  outbox  sends what the store recorded
"""
