"""The durable spool of accepted mail: append-only segments, one flush for many mails.

`record` is the format (pure), `segments` the files, `writer.Spool` the directory with its recovery,
`commit.GroupCommit` the thread between the wire and the disk, `disk.Disk` the seam at which tests make a disk
fail. Knows no SQL and no KIM.
"""

from schleuse.mail.spool.commit import GroupCommit
from schleuse.mail.spool.disk import Disk, OsDisk
from schleuse.mail.spool.envelope import Envelope
from schleuse.mail.spool.segments import Condition, Damaged, DamagedRecordError, Kept, SegmentReader
from schleuse.mail.spool.writer import Spool

__all__ = [
    "Condition",
    "Damaged",
    "DamagedRecordError",
    "Disk",
    "Envelope",
    "GroupCommit",
    "Kept",
    "OsDisk",
    "SegmentReader",
    "Spool",
]
