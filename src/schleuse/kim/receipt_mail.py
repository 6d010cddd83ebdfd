"""A hold receipt as an informational KIM mail, under a label of its own (HD-30). Pure: same receipt, same octets.

It has the empty reverse path of an automatic mail (RFC 3834), and nothing of a DSN: that one was sent already.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from schleuse.kim.receipt_text import receipt_text
from schleuse.mail.contracts import Mail, Notify, Recipient

SUBJECT = "Eingang bestaetigt, Verarbeitung angehalten / received, processing on hold"


def receipt_mail(
    *, delivery: int, to: str, original: str, token: str, receipt: dict[str, Any], host: str, label: str, at: datetime
) -> Mail:
    """original: Message-ID of the held mail. token: the signed receipt, receipt: its payload. at: when it was made."""
    message = EmailMessage(policy=SMTP)
    message["From"] = f"Mail Delivery System <MAILER-DAEMON@{host}>"
    message["To"] = to
    message["Subject"] = SUBJECT
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{delivery:x}.receipt@{host}>"
    if _is_message_id(original):
        message["In-Reply-To"] = message["References"] = f"<{original.strip('<>')}>"
    message["Auto-Submitted"] = "auto-replied"
    message["X-KIM-Dienstkennung"] = label
    message.set_content(receipt_text(receipt), cte="quoted-printable")
    body = json.dumps({"receipt": receipt, "signature": token}, indent=1).encode()
    message.add_attachment(body, maintype="application", subtype="json", filename="receipt.json")
    message.set_boundary(f"=_{hashlib.sha256(token.encode()).hexdigest()[:40]}")
    return Mail("", (Recipient(to, frozenset({Notify.NEVER})),), message.as_bytes(), at, smtputf8=not to.isascii())


def _is_message_id(text: str) -> bool:
    """What its author wrote must not become a field of ours."""
    bare = text.strip("<>")
    return 0 < len(bare) <= 200 and bare.isascii() and bare.isprintable() and not set(bare) & set("<> ")
