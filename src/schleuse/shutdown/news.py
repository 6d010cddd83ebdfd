"""When those who wait hear from us next: a promise that somebody made, signed, and that can be broken (§ 6.4, CM-03).

    <home>/switch/news/ID.json

While something is closed, information is due at an interval of the configuration, counted from the closing, until a
person informs and says by when he does so again. Nothing renews a promise by itself: what passed without news is
overdue, an alarm, and shown as that. No promise opens anything (SW-03).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.errors import Error, MalformedError, UnavailableError
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.opening import Json, canonical_json, parse_canonical_json
from schleuse.scopes import Scope
from schleuse.shutdown.closure import Need
from schleuse.switch.documents import NotAuthorisedError, Rights, Role, parse_scope, parse_time, time_text
from schleuse.switch.fields import table_of
from schleuse.switch.standing import UNKNOWN_TIME

_SIGNED = b"schleuse switch news v1\n"
_KEYS = frozenset({"id", "scopes", "next_by", "given_at"})
#: Who may promise: whoever may close, and who speaks for the platform (§ 10). No automat: nothing renews by itself.
SPEAKERS = (Role.COMMUNICATION_LEAD, Role.SWITCH_OFFICER, Role.LEAD, Role.ANALYST)
#: Nobody promises to be silent for longer.
LONGEST = timedelta(days=7)
_SPAN = re.compile(r"(\d{1,5})(m|h|d)", re.ASCII)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class BadNewsError(MalformedError):
    """Not a time by which there can be news, or not a signed promise of one; whoever made it can change it."""

    code = "shutdown.bad-news"


class NewsNotKeptError(UnavailableError):
    """The promise could not be written; its operator looks at the disk."""

    code = "shutdown.news-not-kept"


@dataclass(frozen=True, slots=True)
class News:
    """Somebody has informed those of these scopes, and does so again by `next_by`. Raises BadNewsError."""

    id: str
    scopes: tuple[Scope, ...]
    next_by: datetime
    given_at: datetime

    def __post_init__(self) -> None:
        if not self.scopes or not self.id.replace("-", "").isalnum() or len(self.id) > 64:
            raise BadNewsError("a promise has an id of letters, digits and -, and at least one scope")
        if not timedelta(0) < self.next_by - self.given_at <= LONGEST:
            raise BadNewsError(f"the next information comes later than now and within {LONGEST.days} days")

    def table(self) -> dict[str, Json]:
        """As it is signed."""
        return {
            "id": self.id,
            "scopes": [str(one) for one in self.scopes],
            "next_by": time_text(self.next_by),
            "given_at": time_text(self.given_at),
        }


@dataclass(frozen=True, slots=True)
class SignedNews:
    """operator, role: who signed, and as what."""

    news: News
    operator: str
    role: Role
    signature: bytes


def parse_next(text: str, now: datetime) -> datetime:
    """The time of "90m", "4h", "2d" from now, or of "2026-11-25T14:00Z". Raises BadNewsError."""
    span = _SPAN.fullmatch(text)
    try:
        at = now + int(span[1]) * _UNITS[span[2]] if span else datetime.fromisoformat(text)
    except ValueError as cause:
        raise BadNewsError(f"{text!r} is no time; expected such as 90m, 4h, 2d or 2026-11-25T14:00Z") from cause
    if at.tzinfo is None:
        raise BadNewsError(f"{text!r} has no zone; write it with Z or an offset")
    if not timedelta(0) < at - now <= LONGEST:
        raise BadNewsError(f"the next information comes later than now and within {LONGEST.days} days; found {text!r}")
    return at


def promised(scopes: Sequence[Scope], since: datetime, known: Iterable[SignedNews], every: timedelta) -> datetime:
    """By when there is news about what is closed since then: what was said last, else the interval. Pure.

    scopes: what was said about any of them counts.
    """
    mine = [one.news for one in known if one.news.given_at >= since and _concerns(one.news, scopes)]
    if not mine:
        return since + every
    return max(mine, key=lambda one: (one.given_at, one.id)).next_by


def _concerns(news: News, scopes: Sequence[Scope]) -> bool:
    return any(mine.covers(scope) for mine in news.scopes for scope in scopes)


@dataclass(frozen=True, slots=True)
class Due:
    """When news of one closed scope is due."""

    need: Need
    by: datetime


def due(needed: Iterable[Need], known: Sequence[SignedNews], every: timedelta) -> list[Due]:
    """Of all that is closed since a known time. Pure."""
    return [
        Due(one, promised([one.scope], one.since, known, every))
        for one in needed
        if one.since not in (None, UNKNOWN_TIME) and not one.state.begins
    ]


def sign_news(news: News, operator: str, role: Role, key: Ed25519PrivateKey) -> SignedNews:
    """One signature."""
    return SignedNews(news, operator, role, key.sign(_message(news, role)))


def check_news(signed: SignedNews, rights: Rights) -> None:
    """Raises NotAuthorisedError."""
    person = rights.people().get(signed.operator)
    if person is None or signed.role not in person.roles or signed.role not in SPEAKERS:
        raise NotAuthorisedError(f"{signed.operator!r} may not promise news as {signed.role}")
    if person.is_disabled(signed.news.given_at):
        raise NotAuthorisedError(f"{person.name} is disabled")
    if not person.has_signed(signed.signature, _message(signed.news, signed.role)):
        raise NotAuthorisedError(f"the signature of {signed.operator} does not match the promise")


class NewsBook:
    """folder: `<home>/switch/news`. A file is read again when it changed, or could not be read."""

    def __init__(self, folder: Path, rights: Rights, every: timedelta) -> None:
        self._folder = folder
        self._rights = rights
        self._every = every
        self._read: dict[str, tuple[_Mark, SignedNews | None]] = {}  # by name of the file

    def keep(self, signed: SignedNews) -> None:
        """Raises NotAuthorisedError, NewsNotKeptError."""
        check_news(signed, self._rights)
        table: dict[str, Json] = {
            "news": signed.news.table(),
            "operator": signed.operator,
            "role": signed.role.value,
            "signature": signed.signature.hex(),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(OsDisk(), self._folder / f"{signed.news.id}.json", canonical_json(table))
        except OSError as cause:
            raise NewsNotKeptError(f"the promise cannot be written ({cause.strerror})") from cause

    def known(self) -> Sequence[SignedNews]:
        """All that count; what is damaged or not signed well promises nothing."""
        found: dict[str, tuple[_Mark, SignedNews | None]] = {}
        for path in sorted(self._folder.glob("*.json")):
            with suppress(OSError):  # nobody can read it now: the next look tries again
                mark = _mark(path)
                before = self._read.get(path.name)
                found[path.name] = before if before and before[0] == mark else (mark, self._news_in(path))
        self._read = found
        return [one for _, one in found.values() if one is not None]

    def promised(self, scopes: Sequence[Scope], since: datetime) -> datetime:
        """See `promised`."""
        return promised(scopes, since, self.known(), self._every)

    def due(self, needed: Iterable[Need]) -> list[Due]:
        """See `due`."""
        return due(needed, self.known(), self._every)

    def _news_in(self, path: Path) -> SignedNews | None:
        """Raises OSError."""
        data = path.read_bytes()
        try:
            found = _parsed(data)
            check_news(found, self._rights)
        except Error:
            return None
        return found


#: Differs when a file was written or replaced.
_Mark = tuple[int, int, int]


def _mark(path: Path) -> _Mark:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _message(news: News, role: Role) -> bytes:
    return _SIGNED + role.value.encode() + b"\n" + canonical_json(news.table())


def _parsed(data: bytes) -> SignedNews:
    try:
        value = table_of(parse_canonical_json(data))
        table = table_of(value["news"])
        if set(table) != _KEYS:
            raise BadNewsError(f"a promise has {', '.join(sorted(_KEYS))}")
        scopes = tuple(parse_scope(one) for one in table["scopes"])
        news = News(str(table["id"]), scopes, parse_time(str(table["next_by"])), parse_time(str(table["given_at"])))
        return SignedNews(
            news, str(value["operator"]), Role(str(value["role"])), bytes.fromhex(str(value["signature"]))
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise BadNewsError(f"expected a signed promise of news; found {type(cause).__name__}") from cause
