"""The demo home, and the short block that says what runs where and what to try next."""

from __future__ import annotations

from pathlib import Path

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.environment import Environment
from schleuse.identifiers import IK
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, Step, create_home

#: Invented insurers; the IKs start with 10 like those of real Krankenkassen and have no right check digit.
INSURERS = (
    NewInsurer(IK("109900011"), "Beispiel-Krankenkasse Nord", "beispiel-nord"),
    NewInsurer(IK("109900022"), "BKK Muster", "bkk-muster"),
    NewInsurer(IK("109900033"), "Probe Gesundheitskasse", "probe"),
)
PRACTICES = (
    NewPractice("praxis-ahorn", "Praxis Dr. Ahorn", "rsa"),
    NewPractice("praxis-birke", "Praxis Dr. Birke", "brainpool"),
)
#: What is longer does not widen the column of commands.
LONGEST_COMMAND = 60


def create_demo(folder: Path, step: Step) -> None:
    """A home with three insurers and two practices. Raises HomeExistsError."""
    new = NewHome(Environment.TEST, "kim.demo.kim.telematik-test", INSURERS, PRACTICES)
    create_home(folder, new, utc_now(), step)


def what_runs_where(config: Config, german: bool) -> str:
    """The block that `schleuse up` ends its start with."""
    kim, eau = config.kim, config.eau
    ik = config.insurers[0].ik if config.insurers else "IK"
    year = utc_now().year
    metrics = (kim.metrics, eau.metrics, config.journal.metrics, config.vault.metrics, config.control.metrics)
    lines = [
        ("SMTP (TLS)", kim.smtp_tls),
        ("SMTP (STARTTLS)", kim.smtp_starttls or "-"),
        ("POP3 (TLS)", kim.pop3_tls),
        ("Kassen-Feed" if german else "insurers' feed", f"https://{eau.feed}/v1/{ik}/eau   (/v1/openapi.json)"),
        ("Journal" if german else "journal", f"http://{config.journal.http}/{ik}/{year}/checkpoint"),
        ("Empfangsbelege" if german else "receipts", f"https://{kim.receipts}/v1/receipts/…"),
        ("Tresor" if german else "vault", str(config.vault_socket)),
        *(("Zeuge" if german else "witness", str(folder)) for folder in config.witnesses),
        ("Metriken" if german else "metrics", "  ".join(f"http://{one}/metrics" for one in metrics)),
        ("Daten und Logs" if german else "data and logs", str(config.home)),
    ]
    width = max(len(name) for name, _ in lines)
    next_steps = [
        (
            "./schleuse practice send --count 20 --faulty signature",
            "20 eAU und eine fehlerhafte",
            "20 eAU and a faulty one",
        ),
        ("./schleuse practice status", "Empfangsbestätigungen und Fehler", "receipts and errors"),
        (f"./schleuse eau feed {ik}", "was die Kasse abholt", "what the insurer fetches"),
        ("./schleuse hold check", "nichts verloren, nichts doppelt", "nothing lost, nothing twice"),
        ("./schleuse journal status", "jede Öffnung hat einen Eintrag", "every opening has an entry"),
        *_at_the_insurer(config, ik, year),
        (
            "./schleuse switch hold 'eau/*' --reason security_hold --text Übung",
            "alles eAU sofort anhalten, eine Person genügt",
            "hold all eAU at once, one person suffices",
        ),
        ("./schleuse closure list", "bewiesen, dass nichts geöffnet wird", "proven that nothing is opened"),
        ("./schleuse switch show", "was wo gilt", "what stands where"),
    ]
    column = max(len(command) for command, _, _ in next_steps if len(command) <= LONGEST_COMMAND)
    return "\n".join(
        [
            "[bold]Schleuse läuft.[/]" if german else "[bold]Schleuse is running.[/]",
            *(f"  {name:<{width}}  {value}" for name, value in lines),
            "",
            "In einem zweiten Terminal:" if german else "In a second terminal:",
            *(f"  {command:<{column}}  [dim]{de if german else en}[/]" for command, de, en in next_steps),
            "",
            "Strg-C hält alles an." if german else "Ctrl-C stops everything.",
        ]
    )


def _at_the_insurer(config: Config, ik: str, year: int) -> list[tuple[str, str, str]]:
    """What the first insurer's witness can do; nothing without a witness."""
    if not config.witnesses:
        return []
    folder = config.witnesses[0]
    copy = folder / "mirror"
    return [
        (f"./schleuse witness status --config {folder}", "was die Kasse bezeugt hat", "what the insurer has cosigned"),
        (
            f"./schleuse witness mirror --config {folder}",
            "das Journal zur Kasse kopieren",
            "copy the journal to the insurer",
        ),
        (
            f"./schleuse journal verify {copy / ik / str(year)} --policy {folder / f'policy-{year}'}",
            "und ohne Netz prüfen",
            "and check it without network",
        ),
    ]
