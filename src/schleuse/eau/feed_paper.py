"""An insurer's system tells which certificates came on paper, and is shown which eAU may be the same (HD-05, T-06).

    PUT  /v1/{ik}/paper/{reference}       what the barcode says (eau.md § 16); again: the same answer
    GET  /v1/{ik}/paper?after=&limit=     all that were told, each with the eAU that may be the same

During a disturbance a practice prints, and afterwards the same certificate comes by mail, perhaps under a number of its
own. What is told is made a pseudonym of the vault at once and not kept: of the paper the store has the insurer's own
name of it and this pseudonym. Each telling is an entry in the insurer's journal before it is kept. A match is shown to
people; nothing is ever dropped for it.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schleuse.clock import Now
from schleuse.eau.document import certificate_key
from schleuse.eau.feed_errors import responses
from schleuse.eau.feed_login import Logins
from schleuse.eau.feed_session import Client, Door, Insurer
from schleuse.eau.feed_store import FeedStore
from schleuse.eau.feed_views import MAX_CURSOR, PaperPage, PaperView, paper_view
from schleuse.eau.references import require_no_person
from schleuse.vault import Named, Vault

MAX_LIMIT = 500
#: Eight are on the form, and the eAU has no more.
MAX_DIAGNOSES = 12


def _real_day(text: str) -> str:
    date.fromisoformat(text)
    return text


Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_real_day)]
Icd = Annotated[str, Field(pattern=r"^[A-Z][0-9]{2}(\.[0-9]{1,2})?$", description="ICD-10-GM, without marks")]
Reference = Annotated[
    str,
    Path(
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="The insurer's own name of the scan, nothing of a person",
    ),
]


class PaperCase(BaseModel):
    """What the barcode of the paper says and matching needs; all of it as an eAU says it.

    practice: BSNR. starts_on: arbeitsunfähig seit; null where the eAU has none, too (Folgebescheinigung).
    """

    model_config = ConfigDict(extra="forbid")

    kvnr: Annotated[str, Field(pattern="^[A-Z][0-9]{9}$", repr=False)]
    practice: Annotated[str, Field(pattern="^[0-9]{9}$")]
    starts_on: Day | None = None
    ends_on: Day
    kind: Literal["ERST", "FOLGE", "ERST_END", "FOLGE_END"]
    diagnoses: Annotated[list[Icd], Field(max_length=MAX_DIAGNOSES)]

    def key(self) -> bytes:
        """See `certificate_key`."""
        return certificate_key((self.kvnr,), self.practice, self.starts_on, self.ends_on, self.kind, self.diagnoses)


def add_paper(app: FastAPI, store: FeedStore, vault: Vault, logins: Logins, door: Door, now: Now) -> None:
    """The two operations."""

    @app.put("/v1/{ik}/paper/{reference}", responses=responses(400, 409), operation_id="tell_paper", tags=["paper"])
    def tell_paper(ik: Insurer, client: Client, reference: Reference, paper: PaperCase) -> PaperView:
        """A certificate came on paper; the answer names the eAU that may be the same, if they are here already."""
        require_no_person(reference)
        # Asked before it is told: a vault that does not serve leaves no entry of something that was not kept.
        (whose,) = vault.pseudonyms(client.ik, [Named(paper.kvnr.encode(), paper.key())])
        logins.tell_paper(client, reference)
        epoch = door.epoch(client.ik)
        return paper_view(store.paper.tell(client.ik, reference, whose.content, client.client, now(), epoch))

    @app.get("/v1/{ik}/paper", responses=responses(), operation_id="list_papers", tags=["paper"])
    def list_papers(
        ik: Insurer,
        client: Client,
        after: Annotated[int, Query(ge=0, le=MAX_CURSOR)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    ) -> PaperPage:
        """What was told, in order, with what may be the same by now."""
        found = store.paper.papers(client.ik, after, limit)
        logins.tell_listing(client, len(found))
        return PaperPage(papers=[paper_view(one) for one in found], next=found[-1].number if found else after)
