"""Whether a kept connection to the vault still lives, found out without waiting."""

from __future__ import annotations

import socket

from schleuse.vault.client import _Connection


def test_a_connection_on_which_nothing_was_said_lives() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)  # as short as this, and still it is no answer "dead"
        assert _Connection(ours).is_alive()


def test_a_connection_whose_other_end_hung_up_is_dead() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        ours.settimeout(30)
        assert not _Connection(ours).is_alive()
