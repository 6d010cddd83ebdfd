"""KIM mailboxes: addresses, accounts, the mail store, and opening and building KIM mail (domain reference kim.md).

Who talks to it: the `kim` role (accepts, routes, reports, serves POP3), the `eau` role (takes mail of the
insurers' mailboxes under a lease) and the practice simulator (builds and opens mail).
"""
