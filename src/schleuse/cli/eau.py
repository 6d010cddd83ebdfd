"""`schleuse eau check`, `schleuse eau feed` and `schleuse eau paper`."""

from __future__ import annotations

from cyclopts import App

app = App(name="eau", help="Sick notes: judge files, read an insurer's feed, tell what came on paper.")
app.command("schleuse.cli.eau_check:check", name="check")
app.command("schleuse.cli.eau_feed:feed", name="feed")
app.command("schleuse.cli.eau_paper:paper", name="paper")
app.command("schleuse.cli.eau_answers:answers", name="answers")
