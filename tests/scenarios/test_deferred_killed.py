"""A mail role that is killed right after it told somebody to come again knows of it (incident.md § 6.5, § 6.8)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.scenarios import switching
from tests.scenarios.platform import platform, until
from tests.scenarios.test_switch_kim import asked

from schleuse.kim.store.deferrals import read_away
from schleuse.scopes import ScopeState


def test_who_was_deferred_in_the_moment_before_a_kill_is_on_the_list(base_home: Path, tmp_path: Path) -> None:
    """Else "nobody else was told to come again" would be said without a record, and no eAU where one is on its way."""
    with platform(base_home, tmp_path / "home") as one:
        switching.close(one.home, "eau/*", ScopeState.DEFER)
        one.start("kim")
        until(lambda: one.ready("kim"), f"kim\n{one.log('kim')}")
        addresses = [insurer.address for insurer in one.config.insurers]
        for address in addresses:
            assert asked(one, address)[0][0] == 451
        one.kill("kim")
        one.start("kim")

        def listed() -> set[str]:
            now = datetime.now(UTC)
            found = read_away(one.config.kim_database, now - timedelta(days=1), now + timedelta(days=1))
            return {away.recipient for away in found}

        until(lambda: listed() == {address.lower() for address in addresses}, f"the list\n{one.log('kim')}", 60)
