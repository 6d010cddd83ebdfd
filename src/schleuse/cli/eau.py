"""`schleuse eau check` and `schleuse eau feed`."""

from __future__ import annotations

from cyclopts import App

app = App(name="eau", help="Sick notes: judge files, read an insurer's feed.")
app.command("schleuse.cli.eau_check:check", name="check")
app.command("schleuse.cli.eau_feed:feed", name="feed")
