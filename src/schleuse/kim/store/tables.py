"""The tables of the mail store. All times are microseconds since 1970 (UTC), so that comparing them is cheap."""

from __future__ import annotations

import sqlalchemy as sa

from schleuse.switch import fence

METADATA = sa.MetaData()

#: One row for each recipient of each accepted mail. id: see `delivery.delivery_id`. account: None for the
#: outbound queue. twin: key of the same mail to the same recipient (`placement.twin_key`), on the first of them only.
#: digest: of the mail (`Envelope.digest`), None if its record was damaged or older than this column.
#: expires_us: None while the retention clock is paused (HD-24), else when the body may be erased.
#: epoch: of the switch when a worker took or finished it last; None: never under the switch.
DELIVERY = sa.Table(
    "kim_delivery",
    METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("account", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("twin", sa.LargeBinary),
    sa.Column("linked_to", sa.BigInteger),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("accepted_us", sa.BigInteger, nullable=False),
    sa.Column("changed_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("not_before_us", sa.BigInteger, nullable=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_until_us", sa.BigInteger),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("delay_reported", sa.Boolean, nullable=False),
    sa.Column("expires_us", sa.BigInteger),
    sa.Column("purged_us", sa.BigInteger),
    sa.Column("epoch", sa.BigInteger),
)

#: One row for each DSN that is owed. accepted_us: when it was accepted as a mail; None: still to be done;
#: 0: it can never be built, because the record of its mail is damaged.
REPORT = sa.Table(
    "kim_report",
    METADATA,
    sa.Column("delivery", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("action", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("diagnostic", sa.Text),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("accepted_us", sa.BigInteger),
)

#: At most one row: everything before this position has its deliveries.
CURSOR = sa.Table("kim_cursor", METADATA, sa.Column("position", sa.BigInteger, nullable=False))

#: Segments that were removed after all their mails were purged, with what the accounting needs of them.
RETIRED = sa.Table(
    "kim_retired",
    METADATA,
    sa.Column("segment", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("mails", sa.BigInteger, nullable=False),
    sa.Column("deliveries", sa.BigInteger, nullable=False),
)

#: PostgreSQL only: the mails themselves. position: given when routed, so it grows in the order of commits.
BODY = sa.Table(
    "kim_body",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("position", sa.BigInteger),
    sa.Column("meta", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.LargeBinary),
)

#: The epoch of each atom, below which no effect is recorded (SW-06).
FENCE = fence.define_table(METADATA)

#: One row for each time that a mailbox was held. epoch, command, reason: of the closing. from_id: highest delivery of
#: the mailbox when it began; to_id: when it ended, None while it lasts. What is HELD up to to_id is its backlog, and
#: may be taken up to released_to. drained_us: when a released backlog was found empty.
HOLD = sa.Table(
    "kim_hold",
    METADATA,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("from_id", sa.BigInteger, nullable=False),
    sa.Column("began_us", sa.BigInteger, nullable=False),
    sa.Column("to_id", sa.BigInteger),
    sa.Column("ended_us", sa.BigInteger),
    sa.Column("ended_epoch", sa.BigInteger),
    sa.Column("released_to", sa.BigInteger, nullable=False),
    sa.Column("drained_us", sa.BigInteger),
)

#: Up to which epoch the hold windows of a mailbox follow the switch.
FOLLOWED = sa.Table(
    "kim_followed",
    METADATA,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
)

#: How many deliveries a LIMITED scope has taken in an hour since 1970.
TAKEN = sa.Table(
    "kim_taken",
    METADATA,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)
