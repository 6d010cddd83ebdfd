"""The five kinds of error, and nothing else.

Each package derives its own beside the code that raises it and gives it a `code` that is never
reused (`"identifier.bad-ik"`). Each edge (SMTP, POP3, HTTP, command line) has one table from kind to reply.
A message says what was found, what was expected and who can change it, and quotes no personal data.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """Base of all errors that we raise on purpose."""

    code: ClassVar[str] = "error"


class MalformedError(Error):
    """You broke a format. Sending the same bytes again cannot help."""

    code = "malformed"


class RefusedError(Error):
    """Well formed, but not allowed for this sender, record or moment."""

    code = "refused"


class ConflictError(Error):
    """It contradicts what is recorded, such as an epoch that has passed."""

    code = "conflict"


class UnavailableError(Error):
    """We or a neighbour cannot serve now. Sending again later may help."""

    code = "unavailable"


class CorruptError(Error):
    """Our own stored data contradicts itself. We stop, and never repair silently."""

    code = "corrupt"
