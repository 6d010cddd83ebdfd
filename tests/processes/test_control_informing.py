"""Informing with real programs, real HTTPS and a receiver that is down, slow or somebody else (§ 10, RS-14)."""

from __future__ import annotations

import asyncio
import http.server
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from structlog.testing import capture_logs
from tests.mail.smtp_server import make_certificate
from tests.processes.test_control_closing import Site as Home
from tests.processes.test_restart_control import CANARY, climbed
from tests.processes.test_restart_control import plan as restart_plan
from tests.restart.restarting_site import ANNA
from tests.restart.restarting_site import Site as Back
from tests.shutdown.operators import NOW, RIGHTS, close

from schleuse.config import Receiver
from schleuse.journal.opening import Json
from schleuse.processes.control_drills import drill_book
from schleuse.processes.control_informing import Informer, InformingFigures, Records, inform_key
from schleuse.restart.book import BookDamagedError
from schleuse.restart.plan import next_version
from schleuse.restart.progress import Aborted
from schleuse.shutdown.hooks import Outcome
from schleuse.shutdown.informing import Event, Outbox, What
from schleuse.shutdown.news import NewsBook
from schleuse.switch.documents import Role


class Site:
    """A home whose closings are told to some receivers."""

    def __init__(self, folder: Path, *receivers: Receiver) -> None:
        self.folder = folder
        self.home = Home(folder)
        self.key = inform_key(folder)
        self.told: list[Mapping[str, Json]] = []
        self.receivers = receivers
        self.restart()
        self.informer.collect(True)  # from now on

    def restart(self) -> None:
        self.outbox = Outbox(self.folder / "informing")
        news = news_book(self.home.folder)
        records = Records(self.home.closings, drill_book(self.home.folder), None, lambda _: False, news)
        self.informer = Informer(
            self.receivers, "host", self.outbox, records, self.key, lambda facts, _: self.told.append(facts),
            self.home.clock,
        )  # fmt: skip

    def send(self, at: int = 0) -> int:
        return asyncio.run(self.informer.send(self.receivers[at]))

    def figure(self, name: str) -> float:
        figures = InformingFigures(self.informer, self.outbox, [one.name for one in self.receivers], self.home.clock)
        [found] = [one for one in figures.collect() if one.name == name]
        return float(found.samples[0].value)


def news_book(folder: Path) -> NewsBook:
    return NewsBook(folder / "news", RIGHTS, timedelta(hours=4))


def receiver(name: str, send_to: str | tuple[str, ...], **more: object) -> Receiver:
    return Receiver.model_validate({"name": name, "send_to": send_to, **more})


def writes(folder: Path, name: str = "prog", then: str = "") -> Receiver:
    return receiver(name, ("sh", "-c", f"cat >> {folder / name}.txt; echo >> {folder / name}.txt; {then}"))


def heard(folder: Path, name: str = "prog") -> list[dict[str, Json]]:
    path = folder / f"{name}.txt"
    return [json.loads(one) for one in path.read_text().splitlines() if one] if path.exists() else []


def test_a_closing_is_told_with_an_id_and_in_the_journal(tmp_path: Path) -> None:
    site = Site(tmp_path, writes(tmp_path))
    close(site.home.log, "eau_intake")
    assert site.informer.collect(False) == 1
    assert site.send() == 1
    [event] = heard(tmp_path)
    assert (event["event"], event["id"]) == ("closed", "host/closed-1")
    assert [one["act"] for one in site.told] == ["switch.informed"]
    assert (site.informer.collect(True), site.send()) == (0, 0)


def test_after_a_crash_between_telling_and_recording_the_answer_it_is_told_again_with_its_id(tmp_path: Path) -> None:
    """At least once; the receiver knows it by its id."""
    site = Site(tmp_path, writes(tmp_path))
    close(site.home.log, "eau_intake")
    site.informer.collect(False)
    site.outbox.heard = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        site.send()
    site.restart()
    assert (site.informer.collect(True), site.send()) == (0, 1)
    assert [one["id"] for one in heard(tmp_path)] == ["host/closed-1"] * 2


def test_a_closing_without_a_proof_is_told_once(tmp_path: Path) -> None:
    site = Site(tmp_path, receiver("prog", ("true",), events=(What.NOT_PROVEN.value,)))
    close(site.home.log, "eau_intake")
    site.home.clock.forward(61)
    site.informer.collect(True)
    assert (site.informer.collect(True), site.send()) == (0, 1)
    assert site.told[0]["event"] == "not-proven-1"


def test_a_promise_of_news_that_was_not_kept_is_told_once(tmp_path: Path) -> None:
    """CM-03."""
    site = Site(tmp_path, receiver("prog", ("true",), events=(What.NEWS_OVERDUE.value,)))
    close(site.home.log, "eau_intake")
    site.home.clock.forward(4 * 3600 + 1)
    site.informer.collect(True)
    assert (site.informer.collect(True), site.send()) == (0, 1)
    assert str(site.told[0]["event"]).startswith("news-overdue-1-")


def test_a_receiver_that_fails_is_tried_again_and_seen_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    site = Site(tmp_path, writes(tmp_path, "bad", "exit 3"), writes(tmp_path, "good"))
    close(site.home.log, "eau_intake")
    site.informer.collect(False)
    with capture_logs() as logs:
        assert (site.send(0), site.send(1), site.send(0)) == (0, 1, 0)
        assert len(heard(tmp_path, "bad")) == 1  # not at once again
        site.home.clock.forward(61)
        assert site.send(0) == 0
    assert {"inform.failed", "inform.late"} <= {one["event"] for one in logs}
    assert site.figure("schleuse_control_inform_waiting") == 1
    assert site.figure("schleuse_control_inform_seconds") == 61
    assert site.figure("schleuse_control_inform_failures") == 2


def test_a_receiver_that_hangs_is_given_up_and_does_not_delay_the_next_closing(tmp_path: Path) -> None:
    slow = receiver("slow", ("sleep", "60"), timeout_seconds=0.2)
    site = Site(tmp_path, slow, writes(tmp_path))

    async def both() -> None:
        running = asyncio.create_task(site.informer.run())
        # The clock of this home stands still, so it is not tried again.
        while [one.receivers for one in site.outbox.waiting()] != [("slow",)] or not site.informer.failures["slow"]:
            await asyncio.sleep(0.02)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    close(site.home.log, "eau_intake")
    asyncio.run(asyncio.wait_for(both(), 60))
    assert site.outbox.waiting()[0].receivers == ("slow",)


def test_what_nobody_foresaw_ends_no_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the control role, and with it every closing's proof."""
    site = Site(tmp_path, writes(tmp_path))
    deliver, collect = site.informer._deliver, site.informer.collect
    faults: dict[str, list[Exception]] = {"deliver": [RuntimeError("a pipe")], "collect": [ValueError("a file")]}

    async def delivered(receiver: Receiver, event: Event) -> Outcome:
        if faults["deliver"]:
            raise faults["deliver"].pop()
        return await deliver(receiver, event)

    def collected(others: bool) -> int:
        if faults["collect"]:
            raise faults["collect"].pop()
        return collect(others)

    monkeypatch.setattr(site.informer, "_deliver", delivered)
    monkeypatch.setattr(site.informer, "collect", collected)

    async def until_heard() -> None:
        running = asyncio.create_task(site.informer.run())
        while not site.told:
            assert not running.done()
            await asyncio.sleep(0.02)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    close(site.home.log, "eau_intake")
    with capture_logs() as logs:
        asyncio.run(asyncio.wait_for(until_heard(), 60))
    assert [one["event"] for one in logs].count("inform.fault") == 2


class BrokenRestarts:
    """Of two plans the first cannot be read."""

    def names(self) -> list[str]:
        return ["bad", "good"]

    def aborts(self, plan: str) -> list[Aborted]:
        if plan == "bad":
            raise BookDamagedError("event 3 is damaged")
        return [Aborted(NOW, "automat", "", 3)]


def test_one_broken_record_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither closings nor missing proofs nor the aborts of other plans."""
    site = Site(tmp_path, writes(tmp_path))
    site.informer._records = replace(site.informer._records, restarts=BrokenRestarts())  # type: ignore[arg-type]
    monkeypatch.setattr(site.informer._records.drills, "results", lambda: 1 / 0)
    close(site.home.log, "eau_intake")
    site.home.clock.forward(61)
    with capture_logs() as logs:
        site.informer.collect(True)
    assert {one.event.id for one in site.outbox.waiting()} == {"closed-1", "not-proven-1", "aborted-good-3"}
    assert [one["source"] for one in logs if one["event"] == "inform.source-broken"] == ["drills", "restart bad"]


def test_an_abort_that_a_newer_plan_has_replaced_is_told_whenever_somebody_looks(tmp_path: Path) -> None:
    """RS-06: what is told follows every record of an abort, not where the restart stands now; once, over a restart."""
    back = Back(tmp_path / "back")
    back.close("eau")
    site = Site(tmp_path, writes(tmp_path))
    site.informer._records = replace(site.informer._records, restarts=back.restarts)
    made, epochs = restart_plan(), []
    for _ in range(2):
        climbed(back, CANARY, made)
        epochs.append(back.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong").epoch)
        made = next_version(made, back.now)
    back.restarts.make(made, "anna")  # nobody has looked yet
    assert back.at().aborted is None
    for _ in range(2):
        site.informer.collect(True)
        site.restart()
        site.informer._records = replace(site.informer._records, restarts=back.restarts)
    assert [one.event.id for one in site.outbox.waiting()] == [f"aborted-r1-{epoch}" for epoch in epochs]


def test_what_has_no_readable_time_is_told_as_of_the_look_and_once(tmp_path: Path) -> None:
    """An epoch that nobody can read closes all, and it has no time; nor has a drill whose result is damaged."""
    site = Site(tmp_path, writes(tmp_path))
    close(site.home.log, "eau_intake")
    [first] = site.home.log.folder.glob("*1*")
    (first.parent / first.name.replace("1", "2")).write_bytes(b"garbage")
    drill = site.home.folder / "drills" / "d1"
    drill.mkdir(parents=True)
    (drill / "plan.json").write_bytes(b"{}")
    (drill / "result.json").write_bytes(b"garbage")
    site.home.clock.forward(1)
    site.informer.collect(True)
    site.restart()
    assert site.informer.collect(True) == 0
    assert site.send() == 3
    assert {one["id"]: one["at"] for one in heard(tmp_path)} == {
        "host/closed-1": "2026-03-01T12:00:00.000Z",
        "host/closed-2": "2026-03-01T12:00:01.000Z",
        "host/drill-d1": "2026-03-01T12:00:01.000Z",
    }


def test_a_damaged_file_that_waits_is_made_again_from_records_or_shown(tmp_path: Path) -> None:
    """Without a restart. What no record tells any more stays as a figure."""
    site = Site(tmp_path, writes(tmp_path))
    close(site.home.log, "eau_intake")
    site.informer.collect(False)
    waits = tmp_path / "informing" / "waits"
    (waits / "closed-1.json").write_bytes(b"")
    (waits / "not-proven-7.json").write_bytes(b"")
    assert site.figure("schleuse_control_inform_unreadable") == 2
    assert (site.informer.collect(True), site.send()) == (1, 1)
    assert [one["id"] for one in heard(tmp_path)] == ["host/closed-1"]
    assert site.figure("schleuse_control_inform_unreadable") == 1


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what it is posted; answers as a test wants."""

    posts: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012
    status = 204

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Hook.posts.append((dict(self.headers), body))
        self.send_response(Hook.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(URL, CA file) of a real HTTPS server."""
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    Hook.posts, Hook.status = [], 204
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}/event", certificate.certificate
        server.shutdown()


def test_a_post_is_signed_and_anybody_can_check_it_with_the_published_key(
    tmp_path: Path, hook: tuple[str, Path]
) -> None:
    site = Site(tmp_path, receiver("web", hook[0], ca=hook[1]))
    close(site.home.log, "eau_intake")
    site.informer.collect(False)
    Hook.status = 500
    assert site.send() == 0
    Hook.status = 204
    site.home.clock.forward(2)
    assert site.send() == 1
    headers, body = Hook.posts[-1]
    assert [one[1] for one in Hook.posts] == [body, body]
    [jwk] = json.loads((tmp_path / "keys" / "inform.jwks.json").read_bytes())["keys"]
    key = jwt.PyJWK(jwk).key
    jwt.api_jws.decode(headers["Schleuse-Signature"], key, ["EdDSA"], detached_payload=body)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.api_jws.decode(headers["Schleuse-Signature"], key, ["EdDSA"], detached_payload=body + b" ")
    assert json.loads(body)["facts"]["scopes"] == ["eau_intake"]


@pytest.mark.parametrize("wrong", ["ca", "name"])
def test_a_receiver_with_a_foreign_certificate_hears_nothing(
    tmp_path: Path, hook: tuple[str, Path], wrong: str
) -> None:
    url, ca = hook
    asked = receiver("web", url) if wrong == "ca" else receiver("web", url.replace("127.0.0.1", "localhost"), ca=ca)
    site = Site(tmp_path, asked)
    close(site.home.log, "eau_intake")
    site.informer.collect(False)
    with capture_logs() as logs:
        assert site.send() == 0
    assert Hook.posts == []
    assert any("certificate" in str(one.get("reason")) for one in logs)
