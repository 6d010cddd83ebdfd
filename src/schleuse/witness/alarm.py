"""What an insurer is told: a closed list, so that its own monitoring can act on each word (journal.md § 11.5, § 16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Finding(StrEnum):
    """What does not fit. The words are for good; docs/witness.md says what to do about each."""

    FORK = "fork"  #: proven: the log signed two histories
    UNPROVEN = "unproven"  #: signed by the log, without proof that it continues what we cosigned
    ROLLBACK = "rollback"  #: the log shows less than it showed before: its tail was cut off
    FALSE_TILES = "false-tiles"  #: tiles or entries that are not what the signed root says
    QUARANTINE = "quarantine"  #: the journal says of itself that what it has on disk contradicts what was signed
    STALE = "stale"  #: no fresh cosignatures for 15 minutes
    NO_QUORUM = "no-quorum"  #: what is served does not satisfy the policy
    PEER_AHEAD = "peer-ahead"  #: another witness has cosigned more than we are shown
    UNKNOWN_ENTRY = "unknown-entry"  #: an entry that is no JE1, or of a kind that we do not know
    CLOCK = "clock"  #: the time in an entry is more than 10 minutes off the cosignatures
    REPEATED_EVENT = "repeated-event"
    CANARY = "canary"  #: somebody accessed a person who does not exist
    NO_SECOND_ACTOR = "no-second-actor"  #: break-glass or override by one person alone
    NO_PURPOSE = "no-purpose"  #: opened without treatment, consent or any other context
    DENIALS = "denials"  #: many refusals in a row for one actor
    COUNTER_GAP = "counter-gap"  #: the vault's numbers of releases have a hole or a repetition
    OVER_BUDGET = "over-budget"  #: one actor, too many persons within an hour
    SPOOL_GAP = "spool-gap"  #: opened or delivered from the spool and never accepted, or twice
    OTHER_SUCCESSOR = "other-successor"  #: the log announces another key for the next one than the trusted key
    COUNTS_DIFFER = "counts-differ"  #: entries, vault and HSM counted differently


@dataclass(frozen=True, slots=True)
class Alarm:
    """One finding in one log. index: of the entry, if it is about one. text: for people; no personal data."""

    finding: Finding
    origin: str
    text: str
    index: int | None = None


#: Is told each alarm once, after it became durable where it has a place to be durable in.
OnAlarm = Callable[[Alarm], None]
