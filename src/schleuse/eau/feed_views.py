"""What the feed says, as JSON; the OpenAPI description is made of these."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from schleuse.eau.feed_store import Event
from schleuse.eau.paper_store import Paper
from schleuse.identifiers import IK

MAX_CURSOR = 2**63 - 1


class Links(BaseModel):
    """Where the document is, relative to this server."""

    xml: str
    p7s: str | None


class EventView(BaseModel):
    """One event, in acceptance order. accepted_at is the time of receipt at the insurer, also after a hold.

    held_for_seconds: how long the platform's switch held it, as a mail or as a document; 0 if it did not (HD-46).
    state tells whether the document has been cancelled since. possibly_same_as: an earlier eAU that may be the same
    certificate under another number; possibly_on_paper: the insurer's name of one that came on paper. Somebody should
    look, nothing was dropped.
    """

    seq: int
    kind: Literal["eau", "storno"]
    document_id: str
    accepted_at: datetime
    held_for_seconds: int
    state: Literal["accepted", "cancelled"]
    sha256: str
    cancels: str | None
    possibly_same_as: str | None
    possibly_on_paper: str | None = None
    links: Links


class Page(BaseModel):
    """next: cursor to go on from and to acknowledge. acked: of this client. last: newest event of the feed."""

    events: list[EventView]
    next: int
    acked: int
    last: int


class Ack(BaseModel):
    """cursor: `seq` of the last event that was taken over."""

    model_config = ConfigDict(extra="forbid", strict=True)  # true is no cursor

    cursor: int = Field(ge=0, le=MAX_CURSOR)


class Acked(BaseModel):
    """Where the client stands now."""

    acked: int
    last: int


class PaperView(BaseModel):
    """One certificate on paper. possibly_same_as: eAU of the feed; the oldest is the one that later ones name, too."""

    number: int
    reference: str
    told_at: datetime
    possibly_same_as: list[str]


class PaperPage(BaseModel):
    """next: to go on from."""

    papers: list[PaperView]
    next: int


def view(ik: IK, event: Event) -> EventView:
    """One event as the client reads it."""
    path = f"/v1/{ik}/eau/{quote(event.document_id.value, safe=':')}"
    return EventView(
        seq=event.seq,
        kind=event.kind.value,
        document_id=event.document_id.value,
        accepted_at=event.accepted_at,
        held_for_seconds=round(event.held_for.total_seconds()),
        state="cancelled" if event.state.value == "cancelled" else "accepted",
        sha256=event.sha256.hex(),
        cancels=event.target.value if event.target else None,
        possibly_same_as=event.similar_to.value if event.similar_to else None,
        possibly_on_paper=event.on_paper,
        links=Links(xml=f"{path}?format=xml", p7s=f"{path}?format=p7s" if event.signed else None),
    )


def paper_view(paper: Paper) -> PaperView:
    """One certificate on paper as the client reads it."""
    return PaperView(
        number=paper.number,
        reference=paper.reference,
        told_at=paper.told_at,
        possibly_same_as=[id.value for id in paper.matches],
    )
