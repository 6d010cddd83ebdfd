"""What the code cannot say about its own names, for the tables of docs/. Keys are checked against the code."""

# ruff: noqa: E501 -- one line a key, as in the table that it becomes

from __future__ import annotations

from collections.abc import Mapping, Sequence

CONFIGURATION: Mapping[str, str] = {
    "environment": "decides the suffix of every KIM address and the prefix of eAU file names; the two never mix",
    "hostname": "our name in EHLO, Received and DSN; no route may lead back to it",
    "product": "name and version that Fehlernachrichten carry as `X-KIM-Sendersystem`",
    "kim.smtp_tls": "SMTP for clients that log in, TLS from the first octet",
    "kim.smtp_starttls": "the same with STARTTLS; login only after it",
    "kim.smtp_relay_client_ca": "other providers' hosts must show a certificate of this CA; without it whoever reaches the port may bring mail",
    "kim.smtp_relay": "SMTP for other providers' hosts, without login, TLS from the first octet; only to our own mailboxes",
    "kim.pop3_tls": "POP3, TLS from the first octet",
    "kim.tls.certificate": "server certificate of SMTP and POP3, PEM with its chain; read at start",
    "kim.tls.key": "its key; read at start",
    "kim.database": "URL of the mail index; `postgresql+psycopg://…` keeps the mails themselves in PostgreSQL, too; none: `kim.sqlite` in the home",
    "kim.spool": "folder of the segments with accepted mails; unused with PostgreSQL",
    "kim.directory": "file with KIM addresses and encryption certificates ([operating.md](operating.md#the-directory)); read again when it changes",
    "kim.max_mail_octets": "biggest mail that is taken (kim.md § 17); a bigger one is answered with 552",
    "kim.max_connections": "SMTP connections at the same time, over all peers of a port",
    "kim.max_connections_per_peer": "SMTP connections at the same time from one address",
    "kim.retention_days": "days that the body of a finished mail is kept (kim.md § 17: 10 to 365); what waits is never erased",
    "kim.min_free_octets": "octets that stay free on the disk of the spool; with less, mail is answered with 452 (HD-28). None: 5 %, at most 4 GiB",
    "kim.metrics": "metrics and health of the `kim` role, without TLS: keep it on loopback",
    "kim.routes[].domain": "the mail domain that goes this way; `*` is the smarthost for all others",
    "kim.routes[].host": "the next host's name",
    "kim.routes[].port": "its port",
    "kim.routes[].tls": "`none` is refused unless the host is on this machine",
    "kim.routes[].ca": "PEM file with the anchors that the host's certificate is verified against; none: the system's",
    "kim.routes[].client_certificate": "our certificate for mutual TLS between Fachdienste (kim.md § 11); with `client_key` or not at all",
    "kim.routes[].client_key": "its key",
    "kim.routes[].connections": "connections to this host at the same time",
    "kim.routes[].user": "login at the next host; takes effect only together with `password_file`",
    "kim.routes[].password_file": "file with the password",
    "eau.workers": "processes that open, check and file; one a core is a good number",
    "eau.batch": "mails that a worker takes and files in one transaction",
    "eau.database": "URL of the eAU store; none: `eau.sqlite` in the home",
    "eau.feed": "HTTPS for the insurers' systems",
    "eau.feed_tls.certificate": "its server certificate, PEM with its chain; read at start",
    "eau.feed_tls.key": "its key; read at start",
    "eau.metrics": "metrics and health of the `eau` role, without TLS: keep it on loopback",
    "eau.trust": "PEM files with the CA certificates that signatures must lead to, and with CRLs; read with the first mail",
    "eau.rules": "our own rules, or the packages that `schleuse fhir add` has installed",
    "eau.packages": "folder of those packages",
    "eau.submit": "SMTP port of the `kim` role that Fehlernachrichten are handed to",
    "eau.submit_ca": "PEM file with the anchor of that port's certificate",
    "eau.accept_if_payload_signature_valid": "file a document whose own signature is valid although that of its KIM mail is not",
    "insurers[].ik": "Institutionskennzeichen; one entry each",
    "insurers[].name": "for people",
    "insurers[].address": "the eAU mailbox; needs an account with the owner `insurer:IK`",
    "insurers[].encryption": "certificate and key of C.HCI.ENC, newest first; keep old pairs until no mail for them can come",
    "insurers[].signature": "certificate and key of C.HCI.OSIG, which sign Fehlernachrichten",
    "insurers[].store_key": "file of 32 random octets; stored documents are sealed and persons' pseudonyms are made with it. Lost: the documents are lost",
    "insurers[].password_file": "password of the insurer's mailbox in plain text, for sending Fehlernachrichten",
    "insurers[].feed_clients[].name": "for people",
    "insurers[].feed_clients[].public_key": "file with the SHA-256 of a bearer token in hexadecimal; the token has at least 128 random bits",
    "accounts[].address": "KIM address; also the user name for SMTP and POP3",
    "accounts[].owner": "`insurer:IK` or `practice:NAME`",
    "accounts[].password_hash_file": "file with an argon2id hash; read at start",
}

#: Who can change it, where the line of a code does not say.
WHO: Mapping[str, str] = {
    "malformed": "Who made the mail, document, request or command line must change it; a practice gets a Fehlernachricht"
    " where eau.md § 12 has a code for it.",
    "refused": "Who asked must ask for something else, or the operator must allow it.",
    "conflict": "Nobody must change content: whoever asked looks again at what is recorded.",
    "unavailable": "The operator, or nobody: the same is tried again later, and nothing was lost.",
    "corrupt": "The operator: restore what is damaged. The role stops there and repairs nothing by itself.",
}

STATES: Mapping[str, str] = {
    "ACCEPTED": "durable and acknowledged with 250, not yet routed to its recipients",
    "DEFERRED": "answered with 4xx, so its sender keeps it; never the state of an accepted message",
}

MOVES: Mapping[str, str] = {
    "ACCEPTED HELD": "routed into a mailbox here or into the outbound queue",
    "ACCEPTED DUPLICATE_LINKED": "the same recipient already has this Message-ID with this content",
    "ACCEPTED DELIVERED": "a rebuilt index: a mark says that it was finished",
    "ACCEPTED DEFERRED": "reserved for a scope that is switched to DEFER; nothing makes it today",
    "HELD RELEASING": "an `eau` worker or the outbound queue has taken it",
    "HELD DELIVERED": "its owner fetched it by POP3 and deleted it",
    "HELD WITHDRAWN": "reserved for a withdrawal by the sender; nothing makes it today",
    "RELEASING HELD": "own trouble, a worker that died, or a next host that said 4xx: tried again later",
    "RELEASING DELIVERED": "filed in the eAU store, or taken over by the next host",
    "RELEASING DUPLICATE_LINKED": "the same document was filed before under another Message-ID",
    "RELEASING QUARANTINED": "no code may say what is off; people look",
    "RELEASING RETURNED": "a Fehlernachricht was recorded, or the next host refused it for good",
    "QUARANTINED HELD": "people decided that it is looked at again",
    "QUARANTINED RETURNED": "reserved for people's decision to return it; nothing makes it today",
    "DELIVERED CONFIRMED": "the insurer's system acknowledged it in the feed",
}

QUARANTINE: Mapping[str, Sequence[str]] = {
    "test_in_production": (
        "a file name that starts with T (test data) in production",
        "tell the practice's software vendor; nothing else",
    ),
    "production_in_test": (
        "a file name that starts with E (productive) in a test environment",
        "call the practice: a real sick note went to a test address and must be sent again",
    ),
    "unclassifiable": (
        "neither Dienstkennung, file name nor content says what it is",
        "read who sent it; forward it to the right mailbox, or ask the sender",
    ),
    "stray_fehlernachricht": (
        "a Fehlernachricht arrived at an insurer's mailbox; answering it could start a loop",
        "tell who sent it; check that the directory entry of the practice is right",
    ),
    "undelivered_letter": (
        "a DSN says that a Fehlernachricht of this insurer failed for good, so the practice does not know of its error",
        "read the DSN for the address and the reason; tell the practice by another way",
    ),
    "id_reused": (
        "the Dokumenten-ID of a filed document on other content; the first is never overwritten",
        "compare the two with the practice; its software makes the same ID twice",
    ),
    "id_unkeepable": (
        "a Dokumenten-ID of more than 255 characters or with control characters, of the document or of the eAU that a"
        " Storno names; the profile allows it",
        "tell the practice, and its software's vendor: a Dokumenten-ID is a UUID; the document must come again with one",
    ),
    "foreign_storno": (
        "a Storno from another practice than the one that issued the eAU, where the policy keeps it",
        "ask both practices",
    ),
    "no_reference": (
        "a faulty mail that no Fehlernachricht can name: neither a Dokumenten-ID nor a Message-ID, or nobody in the"
        " directory to answer to",
        "find the sender by the outer headers and call",
    ),
    "no_address": ("faulty, and nobody to answer to", "find the sender by the outer headers and call"),
}

TROUBLE: Mapping[str, Sequence[str]] = {
    "key": (
        "a key file of the insurer cannot be read, or the directory publishes a certificate that we hold no key for",
        "put the file back (mode 0600): it is read with the next try. Or add the pair that the directory publishes in"
        " front of `insurers[].encryption` and restart `eau`",
    ),
    "store": (
        "the database of one of the two stores cannot serve, or a mail's record cannot be read",
        "look at `code` of the `eau.waiting` and `eau.filing_waits` lines: disk full, PostgreSQL gone, file damaged;"
        " then `hold check`",
    ),
    "validator": (
        "the FHIR rules cannot be loaded, or they pass a document that cannot be filed",
        "`schleuse fhir list`: add what is missing and restart `eau`; else report it as a fault of ours",
    ),
    "trust": (
        "no trust anchor can be read from `eau.trust`",
        "put the CA files back; they are read again with the next mail",
    ),
    "virus_scanner": ("reserved: no scanner is connected today", "nothing"),
    "directory": (
        "the directory file cannot be read, so nobody knows whether the sender's keys and addresses are right",
        "mend `kim.directory`; it is read again when it changes",
    ),
    "membership": ("the insurer's membership data cannot be asked", "mend the connection; none is configured today"),
    "internal": (
        "a mistake of ours, or a KIM version that we do not speak",
        "read the log lines before it; report it with the delivery's id, never with the mail",
    ),
}

METRICS: Mapping[str, str] = {
    "schleuse_kim_events_total": "`mail_failed`, `own_fault`, `outbound.*` with trouble or `*.store_failed` rises",
    "schleuse_kim_spool_octets": "`free` is less than 30 % of `total` (warn), less than 15 % (make room now); under 5 % mail gets 4xx",
    "schleuse_kim_deliveries": "HELD of an insurer grows, or anything is QUARANTINED",
    "schleuse_eau_mails": "QUARANTINED grows; RETURNED grows faster than DELIVERED: a software update at practices, or"
    " a fault of ours",
    "schleuse_eau_fehlernachrichten_late": "it is not 0: practices do not know that their documents were refused",
    "schleuse_eau_stornos_overdue": "it grows: ask the practice which eAU it means; the Dokumenten-ID of the Storno names none that came",
    "schleuse_eau_fehlernachrichten_waiting": "it does not go back to 0 within minutes: the `kim` role or the directory is off",
}

EVENTS: Mapping[str, str] = {
    "connection": "an SMTP client connected",
    "connection_refused": "too many SMTP connections, over all or from this address",
    "tls_failed": "TLS with an SMTP client could not be established",
    "timeout": "an SMTP client was too slow",
    "login": "SMTP login with the right password",
    "login_failed": "SMTP login refused or not possible",
    "mail_kept": "a mail is durable and was acknowledged",
    "mail_failed": "a mail was not kept; its sender was told so",
    "own_fault": "an unexpected error of ours in an SMTP session; the client was told to try again",
    "outbound.bad_setting": "a route's file (CA, certificate, password) cannot be used",
    "outbound.conflict": "somebody else had settled the mail",
    "outbound.delay_reported": "a DSN about the delay was recorded",
    "outbound.delivered": "the next host took a mail over",
    "outbound.failed": "a mail was given up; a failure DSN was recorded if it was asked for",
    "outbound.login_refused": "the next host refused our login",
    "outbound.no_route": "no route for the domain of a mail that was accepted with one: `kim.routes` was changed",
    "outbound.retry": "a mail is tried again later",
    "outbound.session_refused": "the next host refused the session before any mail",
    "outbound.store_failed": "the mail store could not record an outcome; it is tried again",
    "outbound.tls_not_offered": "the next host does not offer the TLS that the route asks for",
    "outbound.tls_not_verified": "the next host's certificate could not be verified",
    "outbound.unreachable": "the next host does not answer",
    "pop3.connected": "a POP3 client connected",
    "pop3.turned_away": "too many POP3 sessions, over all or from this address",
    "pop3.logged_in": "POP3 login with the right password",
    "pop3.login_failed": "POP3 login refused",
    "pop3.fetched": "a mail was fetched",
    "pop3.committed": "deletions of a session became durable at QUIT",
    "pop3.store_failed": "the mail store could not serve a POP3 session",
    "pop3.timed_out": "a POP3 client was too slow",
}

#: Names of log events that are made at run time, by the expression that makes them.
MADE_NAMES: Mapping[str, list[str]] = {
    "f'{name}.waiting'": ["publish.waiting", "confirm.waiting"],
    "f'journal.{event}'": ["journal.witness-silent", "journal.history-lost", "journal.refused-as-inconsistent"],
    "later.trouble.value": [name for name in EVENTS if name in (
        "outbound.unreachable", "outbound.tls_not_verified", "outbound.tls_not_offered", "outbound.login_refused",
        "outbound.session_refused", "outbound.bad_setting", "outbound.no_route",
    )],
}  # fmt: skip

LOG: Mapping[str, str] = {
    "witness.again": "a log that did not answer answers again",
    "witness.alarm": "the monitor found something that cannot be; `finding` names it, evidence is kept",
    "witness.failed": "a request could not be answered for a reason of our own; the log asks again",
    "witness.mistake": "an unexpected error of ours while looking at one log, with a traceback; the others go on",
    "witness.ready": "the witness cosigns; with the public keys to give to the log's operator",
    "witness.waiting": "a log or its checkpoint cannot be had now; tried again",
    "journal.history-lost": "a witness knows a larger log than we have: history was lost, the journal has stopped",
    "journal.quarantine": "what is on the disk of the journal contradicts itself; nothing is written until people decide",
    "journal.ready": "the journal takes entries",
    "journal.refused-as-inconsistent": "a witness refused a checkpoint as inconsistent and keeps evidence",
    "journal.stopped": "the journal ended; nothing is released until it is back",
    "journal.witness-silent": "a witness did not answer or refused; entries go on",
    "eau.rules-fallback": "an official list of packages is not complete; our own rules judge its documents",
    "eau.rules-missing": "official rules are asked for and none are installed; mails wait",
    "child.ended": "a process of the `eau` role died; it is started again",
    "child.failed": "why it died, with a traceback",
    "confirm.waiting": "acknowledgements could not be told to the mail store; tried again",
    "eau.decided": "a mail became something else than DELIVERED; `reason` is a word of docs/states.md or the code of the Fehlernachricht",
    "eau.directory_unavailable": "the directory file cannot be read; faulty mails wait",
    "eau.feed.crashed": "an unexpected error of ours in a feed request",
    "eau.feed.failed": "a feed request ended with 5xx; `code` says why",
    "eau.feed.unconfirmed": "an acknowledgement is durable but the mail store does not know yet; `confirm` repeats it",
    "eau.filing_waits": "a batch could not be filed; all its mails wait",
    "eau.leases_lost": "a worker was slower than its lease; the mails are recognised when they come again",
    "eau.letter_impossible": "a Fehlernachricht could not be built; the mail is QUARANTINED",
    "eau.mistake": "a mistake of ours while one mail was looked at or decided; it waits (`internal`), the others go on",
    "eau.outbox.retry": "a Fehlernachricht could not be handed to the `kim` role; tried again, for ever",
    "eau.outbox.sent": "a Fehlernachricht was handed over",
    "eau.outbox.unavailable": "the letters cannot be read or written now",
    "eau.storno_of_other_practice": "a Storno cancelled the eAU of another practice; both deliveries are named, and nothing waits",
    "eau.waiting": "a worker cannot work at all; it tries again every 2 s",
    "eau.waits": "so many mails of a batch wait; `reasons` are words of the table above with their number, `first` is one delivery of them",
    "mail.purged": "so many mail bodies were erased after their retention",
    "mail.routing-waits": "accepted mail could not be routed; nothing is lost, tried again",
    "outbound.bad_setting": "a route's file cannot be used",
    "outbound.login_refused": "the next host refused our login",
    "outbound.no_route": "no route for an accepted mail",
    "outbound.session_refused": "the next host refused the session",
    "outbound.store_failed": "an outcome could not be recorded; tried again",
    "outbound.tls_not_offered": "the next host does not offer TLS",
    "outbound.tls_not_verified": "the next host's certificate could not be verified",
    "outbound.unexpected": "a mistake of ours, with a traceback; the mail is tried again",
    "outbound.unreachable": "the next host does not answer",
    "pop3.store_failed": "the mail store could not serve a session",
    "pop3.unexpected": "a mistake of ours, with a traceback",
    "pop3.unlock_failed": "a mailbox could not be unlocked",
    "publish.waiting": "the feed could not be numbered on; tried again",
    "purge.waiting": "retention could not run; tried again within the hour",
    "reports.waiting": "DSNs could not be built or kept; tried again",
    "role.ended": "a role died under `schleuse up`; it is started again",
    "smtp.not_kept": "a mail was not kept and its sender was told so; `code` says why",
    "smtp.own_fault": "a mistake of ours in an SMTP session; `where` is the place in the source",
}
