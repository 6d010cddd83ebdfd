"""A hold receipt for people: German, then English (incident.md § 13.3). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

_STATE = {
    "HELD": ("angenommen", "accepted"),
    "RELEASING": ("in Bearbeitung", "being processed"),
    "DELIVERED": ("übernommen", "taken over"),
    "CONFIRMED": ("übernommen und bestätigt", "taken over and confirmed"),
    "DUPLICATE_LINKED": ("war schon da", "was there already"),
    "QUARANTINED": ("angenommen, wird geprüft", "accepted, being looked at"),
    "RETURNED": ("zurückgegeben, siehe die Antwort", "returned, see the answer"),
    "WITHDRAWN": ("vom Absender zurückgezogen", "withdrawn by its sender"),
}
_ACTION = {
    "none": ("Sie müssen nichts tun.", "You need not do anything."),
    "paper_if_not_released_by": (
        "Ist bis {by} keine Zustellbestätigung (DSN) da, geht die Ausfertigung für die Kasse auf Papier.",
        "If no delivery notification (DSN) has come by {by}, send the insurer's copy on paper.",
    ),
    "use_other_channel_if_urgent": (
        "Ist die Nachricht dringend, nutzen Sie bitte Telefon oder Fax.",
        "If the message is urgent, please use phone or fax.",
    ),
    "see_answer": ("Bitte beachten Sie die Antwort zu dieser Nachricht.", "Please see the answer to this message."),
}


def receipt_text(receipt: Mapping[str, Any]) -> str:
    """payload: of `receipts.document`."""
    return "\n".join([*_lines(receipt, 0), "", "---", "", *_lines(receipt, 1)]) + "\n"


def _lines(receipt: Mapping[str, Any], english: int) -> Iterator[str]:
    for message in receipt["messages"]:
        yield from _message(message, english, receipt["iat"])
        yield ""
    yield (("Aktueller Stand: ", "Current state: ")[english]) + receipt["status"]
    if receipt["contact"]:
        yield (("Kontakt: ", "Contact: ")[english]) + receipt["contact"]


def _message(message: Mapping[str, Any], english: int, at: int) -> Iterator[str]:
    """at: when the receipt was made; a promise that had passed by then is not told as one that will be kept."""
    state = _STATE.get(message["state"], (message["state"],) * 2)[english]
    yield (("Nachricht ", "Message ")[english]) + message["reference"]
    accepted, now = ("Angenommen", "Stand") if not english else ("Accepted", "state")
    yield f"{accepted}: {message['accepted_at']}; {now}: {state}"
    if message["held"]:
        yield (
            "Aus Sicherheitsgründen angehalten: Die Nachricht ist sicher verwahrt und wird später verarbeitet.",
            "Held for security reasons: the message is safely kept and will be processed later.",
        )[english]
    if message["do_not_resend"]:
        yield ("Bitte senden Sie sie nicht noch einmal.", "Please do not send it again.")[english]
    action = message["action_needed"]
    yield _ACTION[action["what"]][english].format(by=action["by"])
    if message["accepted_at_counts_as_receipt"]:
        yield ("Es gilt der Zeitpunkt der Annahme.", "The time of acceptance counts.")[english]
    if message["next_information_by"]:
        late = datetime.fromisoformat(message["next_information_by"]).timestamp() < at
        words = (
            (("Nächste Information war zugesagt bis ", "Next information was promised by ")[english])
            if late
            else (("Nächste Information bis ", "Next information by ")[english])
        )
        yield words + message["next_information_by"]
