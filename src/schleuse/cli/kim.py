"""`schleuse kim open`."""

from __future__ import annotations

from cyclopts import App

app = App(name="kim", help="KIM mail: open and verify a file.")
app.command("schleuse.cli.kim_open:open_mail", name="open")
