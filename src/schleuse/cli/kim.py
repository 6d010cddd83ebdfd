"""`schleuse kim …`."""

from __future__ import annotations

from cyclopts import App

app = App(name="kim", help="KIM mail: open and verify a file, rebuild a lost index.")
app.command("schleuse.cli.kim_open:open_mail", name="open")
app.command("schleuse.cli.kim_rebuild:rebuild", name="rebuild")
