"""The tables of the vault. No key and no name stands here in the plain; all of it is worthless without the KEK."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

#: Who stands behind a pseudonym. lookup: keyed digest of the person within the insurer; an identity's is that of its
#: certificate. nonce: keys the content digests of this person. last_version: of the subject's keys.
SUBJECT = sa.Table(
    "vault_subject",
    METADATA,
    sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
    sa.Column("ik", sa.Text, nullable=False),
    sa.Column("lookup", sa.LargeBinary, nullable=False),
    sa.Column("nonce", sa.LargeBinary, nullable=False),
    sa.Column("last_version", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("ik", "lookup"),
)

#: S_vault of a subject and version, as record SK1.
SUBJECT_KEY = sa.Table(
    "vault_subject_key",
    METADATA,
    sa.Column("subject", sa.LargeBinary, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
)

#: Private keys of insurers, each a container VE1. kind: "enc" or "osig". recipient: DER of IssuerAndSerialNumber.
IDENTITY = sa.Table(
    "vault_identity",
    METADATA,
    sa.Column("ik", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, primary_key=True),
    sa.Column("certificate", sa.LargeBinary, nullable=False),
    sa.Column("container", sa.LargeBinary, nullable=False),
)

#: Random values for those who act, within an insurer's log of a year (journal.md § 4).
ACTOR = sa.Table(
    "vault_actor",
    METADATA,
    sa.Column("ik", sa.Text, primary_key=True),
    sa.Column("year", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("pseudonym", sa.LargeBinary, nullable=False),
)

#: What makes entries readable. first, last: events of a batch, in order. subject: the insured person that the entries
#: name, with whom the row is erased. version: of the person's key that seals it; None: the insurer's own does.
OPENING = sa.Table(
    "vault_opening",
    METADATA,
    sa.Column("first", sa.LargeBinary, primary_key=True),
    sa.Column("last", sa.LargeBinary, nullable=False),
    sa.Column("ik", sa.Text, nullable=False),
    sa.Column("subject", sa.LargeBinary),
    sa.Column("version", sa.BigInteger),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
sa.Index("vault_opening_subject", OPENING.c.subject)

#: Keys of an insurer that no entry earns: for lookups, pseudonyms and openings that name no person. Wrapped by the KEK.
TENANT_KEY = sa.Table(
    "vault_tenant_key",
    METADATA,
    sa.Column("ik", sa.Text, primary_key=True),
    sa.Column("record", sa.LargeBinary, nullable=False),
)

#: SHA-256 of each pseudonym whose person was erased. It stood for nobody else, and stands for nobody any more.
ERASED = sa.Table("vault_erased", METADATA, sa.Column("digest", sa.LargeBinary, primary_key=True))

#: The last release number that the vault remembers by itself (journal.md § 14.5).
COUNTER = sa.Table(
    "vault_counter",
    METADATA,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("top", sa.BigInteger, nullable=False),
)

#: Of each log: every change of keys below this size is in this store (decision 0020).
REFLECTED = sa.Table(
    "vault_reflected",
    METADATA,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
)
