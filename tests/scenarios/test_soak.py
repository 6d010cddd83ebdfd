"""T-01 in small, whole: `python -m bench soak` does the same with 80 insurers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scenarios.soak import Size, home_of, run
from tests.scenarios.soak_records import judge

SMALL = Size(insurers=2, practices=2, mails=40, seconds=3.0, live=6, first=3, kills=("kim",), restart=False)


@pytest.mark.slow
def test_54_hours_of_hold_with_repeated_sendings_end_with_every_mail_once(tmp_path: Path) -> None:
    """T-01, HD-08, HD-05, HD-42: 0 lost, 0 rejected, one final state each, receipts, and each practice's answer."""
    with home_of(tmp_path / "home", SMALL) as one:
        soak = run(one, SMALL)
        figures, wrong = judge(soak)
    assert wrong == []
    assert (figures.lost, figures.rejected, figures.receipts, figures.dsn) == (0, 0, 1.0, 1.0)
    assert figures.held >= figures.released >= SMALL.mails / 2
    assert figures.duplicates > 0
    assert figures.octets > 0
