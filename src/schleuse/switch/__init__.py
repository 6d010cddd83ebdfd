"""The switch as the data plane sees it: signed documents, the log they are accepted into, and each role's own copy.

    documents   what an operator signs: Command, Approval; who may (`Rights`)
    standing    the fold: in which state is an atom, since which epoch (pure)
    log         accepted documents, one file an epoch, each chained to the one before
    copy        `LocalSwitch`: what a role asks for each unit of work (SW-04)
    fence       the epoch in the role's own database, checked in the transaction of the effect (SW-06)
    effects     what each worker did when it saw an epoch (SwitchEffect)

Closing needs one signature and nothing that runs; opening needs two persons, and no component of ours can forge it.
`schleuse.shutdown` and `schleuse.restart` make documents; services only read their state here.
"""
