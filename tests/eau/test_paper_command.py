"""`schleuse eau paper`, as an insurer types it (HD-05)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.eau.samples import AN_INSURER, an_id, eau
from tests.eau.test_feed import Fill, app, benefits, fill, journal, mails, running, signer, switch, vault
from tests.eau.test_feed_client import clock, options, pki, server
from tests.eau.test_paper import PAPER
from tests.vault_double import VaultDouble

from schleuse.cli.eau_feed import Given
from schleuse.cli.eau_paper import BadPaperLineError, UnreadablePaperError, paper
from schleuse.eau.document import certificate_key
from schleuse.eau.feed_client import BadFeedRequestError, FeedConflictError
from schleuse.vault import Named

__all__ = ["app", "benefits", "clock", "fill", "journal", "mails", "options", "pki"]  # fixtures
__all__ += ["running", "server", "signer", "switch", "vault"]


def lines(folder: Path, *papers: dict[str, Any]) -> Path:
    file = folder / "scan.jsonl"
    file.write_text("\n".join(json.dumps(one) for one in papers) + "\n")
    return file


def test_what_was_told_is_listed_with_the_eau_that_may_be_the_same(
    options: dict[str, Any], fill: Fill, vault: VaultDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = certificate_key(("A123456780",), "123456789", "2026-02-02", "2026-02-06", "ERST", PAPER["diagnoses"])
    (whose,) = vault.pseudonyms(AN_INSURER, [Named(b"A123456780", said)])
    fill(eau(1, content_key=whose.content))
    file = lines(tmp_path, {"reference": "post-1", **PAPER}, {"reference": "post-2", **PAPER, "ends_on": "2026-02-09"})
    paper(AN_INSURER.value, file, given=Given(**options), json_lines=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["reference"], one["possibly_same_as"]) for one in told] == [
        ("post-1", [str(an_id(1))]),
        ("post-2", []),
    ]
    paper(AN_INSURER.value, given=Given(**options))
    table = capsys.readouterr().out
    assert "2 auf Papier" in table
    assert str(an_id(1)).removeprefix("urn:uuid:") in table
    assert "A123456780" not in table


@pytest.mark.parametrize(
    ("second", "error"),
    [
        ({"reference": "post-1", **PAPER, "ends_on": "2026-02-09"}, FeedConflictError),
        ({"reference": "post-2", **PAPER, "ends_on": "never"}, BadFeedRequestError),
        (PAPER, BadPaperLineError),
    ],
)
def test_a_line_that_is_not_taken_is_named_and_the_ones_before_it_are_told(
    options: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    second: dict[str, Any],
    error: type[Exception],
) -> None:
    file = lines(tmp_path, {"reference": "post-1", **PAPER}, second)
    with pytest.raises(error, match="line 2"):
        paper(AN_INSURER.value, file, given=Given(**options), json_lines=True)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_file_that_is_not_there_is_said(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnreadablePaperError):
        paper(AN_INSURER.value, tmp_path / "missing", given=Given(**options))
