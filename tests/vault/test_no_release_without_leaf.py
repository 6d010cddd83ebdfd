"""Promise 2 of design.md: whatever the journal does, nothing is opened without a durable entry (G1, RP-01)."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.vault.vaults import EAU, ENC, FOREIGN, KASSE, OTHER, Fate, build, mail, store_in, take_over, token

from schleuse.errors import Error, UnavailableError
from schleuse.journal.contracts import Level
from schleuse.journal.entry import Entry, Purpose
from schleuse.vault import Document, Named
from schleuse.vault.contracts import BadTokenError, ErasedError
from schleuse.vault.details import open_for_insurer
from schleuse.vault.filing import object_id
from schleuse.vault.ve1 import parse_header

_T = TypeVar("_T")
PEOPLE = [b"A123456780", b"B123456782"]
FATES = st.lists(st.sampled_from([*Fate, Fate.TAKEN, Fate.TAKEN]), max_size=3)


class NoReleaseWithoutLeaf(RuleBasedStateMachine):
    """Operations in any order over a journal that loses, delays and halves; vaults that die and start again.

    read: how often each object was handed out, by subject, purpose and name of the object.
    gone: subjects of persons who were erased; whoever is filed again is another subject.
    """

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.vault = build(store_in(Path(self.folder.name)))
        self.loop.run_until_complete(take_over(self.vault))
        self.read: Counter[tuple[Purpose, str]] = Counter()
        self.filed: list[tuple[str, bytes, bytes, bytes]] = []  # name, person, plaintext, container
        self.letters: list[tuple[str, bytes]] = []
        self.gone: set[bytes] = set()
        self.number = 0
        self.unwrapped_without_entry: list[str] = []

    def run(self, fates: list[Fate], work: Coroutine[Any, Any, _T]) -> _T | None:
        """The result, or None if the vault could not.

        Whatever comes first after a start also completes the erasures that were told before and not done.
        """
        before, told = self.subjects(), self.destroyed()
        self.vault.journal.fates.extend(fates)

        async def guarded() -> _T | None:
            try:
                return await work
            except UnavailableError:
                return None

        try:
            found = self.loop.run_until_complete(guarded())
        except Error:  # a refusal may have been the first thing after a start
            self.note_gone(before, self.destroyed())
            raise
        finally:
            self.vault.journal.fates.clear()
        self.note_gone(before, told if found is None else self.destroyed())
        return found

    def note_gone(self, before: set[bytes], told: set[bytes]) -> None:
        """Whoever is gone was told to be; an erasure that failed has done nothing."""
        gone = before - self.subjects()
        assert gone <= told
        self.gone |= gone
        for name, _, _, container in self.filed:
            if parse_header(container).subject in gone:
                del self.read[Purpose.EAU_DELIVERY, object_id(KASSE, name, "xml").hex()]

    def destroyed(self) -> set[bytes]:
        """Of whom the journal says that the key was destroyed."""
        return {one.subject for one in self.vault.journal.entries() if one.kind.name == "KEY_DESTROYED"}

    def handed_out(self, purpose: Purpose, name: str) -> None:
        """Note it, and look whether the journal has said so as often, by now."""
        self.read[purpose, name] += 1
        assert self.said(purpose, name) >= self.read[purpose, name]

    def said(self, purpose: Purpose, name: str) -> int:
        """How many entries say that this was read. Their openings are read from the store, as an auditor's would be."""
        return sum(self.names(entry) == name for entry in self.vault.journal.releases() if entry.purpose is purpose)

    def names(self, entry: Entry) -> str | None:
        row = self.vault.store.opening(KASSE, entry.event.bytes)
        if row is None:
            assert entry.purpose is Purpose.EAU_DELIVERY
            assert entry.subject in self.gone
            return None
        opening = open_for_insurer(self.vault.core.keyring.tenant(KASSE), row).about(entry.event.bytes)
        assert opening is not None
        assert opening.object_ is not None
        assert opening.matches(entry)
        assert self.vault.store.actors(KASSE)[entry.actor]
        return opening.object_[1]

    @rule(fates=FATES, kinds=st.lists(st.sampled_from(["good", "damaged", "foreign"]), min_size=1, max_size=4))
    def open_mails(self, fates: list[Fate], kinds: list[str]) -> None:
        mails = [
            mail(place, recipient=FOREIGN if kind == "foreign" else ENC, damaged=kind == "damaged")
            for place, kind in enumerate(kinds)
        ]
        found = self.run(fates, self.vault.service.open_mails(EAU, KASSE, mails))
        for one, result in zip(mails, found or [], strict=False):
            if not isinstance(result, Error):
                name = "kim:" + sha256(one.wrapped.encrypted_key).hexdigest()
                self.handed_out(Purpose.EAU_INTAKE, name)

    @rule(fates=FATES, data=st.binary(max_size=3))
    def sign(self, fates: list[Fate], data: bytes) -> None:
        if self.run(fates, self.vault.service.sign(EAU, KASSE, data)) is not None:
            self.handed_out(Purpose.FEHLERNACHRICHT, "sign:" + sha256(data).hexdigest())

    @rule(fates=FATES, people=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=3))
    def file(self, fates: list[Fate], people: list[bytes]) -> None:
        before = self.vault.kek.subject_unwraps
        pseudonyms = self.run([], self.vault.service.pseudonyms(EAU, KASSE, [Named(one, b"") for one in people]))
        assert pseudonyms is not None
        documents = []
        for one in pseudonyms:
            self.number += 1
            documents.append(Document(one.subject, f"urn:uuid:{self.number}", "xml", f"<{self.number}/>".encode()))
        containers = self.run(fates, self.vault.service.file(EAU, KASSE, documents))
        for document, person, container in zip(documents, people, containers or [], strict=False):
            self.filed.append((document.name, person, document.plaintext, container))
        # What was in doubt before may have arrived by now; filing itself unwraps nothing.
        assert self.vault.kek.subject_unwraps == before

    @rule(fates=FATES, pick=st.integers(0, 99), good=st.booleans())
    def fetch(self, fates: list[Fate], pick: int, good: bool) -> None:
        if not self.filed:
            return
        name, _, plaintext, container = self.filed[pick % len(self.filed)]
        shown = token(self.vault.clock, name, ik=KASSE if good else OTHER)
        try:
            found = self.run(fates, self.vault.service.fetch(EAU, KASSE, shown, name, "xml", container))
        except ErasedError:
            assert (header := parse_header(container)).subject not in self.subjects()
            assert not self.vault.store.has_key(KASSE, header.subject, header.key_version)
            return
        except BadTokenError:
            assert not good
            return
        if found is not None:
            assert good
            assert found == plaintext
            self.handed_out(Purpose.EAU_DELIVERY, object_id(KASSE, name, "xml").hex())

    @rule(fates=FATES)
    def letter(self, fates: list[Fate]) -> None:
        self.number += 1
        name = f"<{self.number}@x>"
        container = self.run(fates, self.vault.service.seal_letter(EAU, KASSE, name, b"draft"))
        if container is None:
            return
        if self.run(fates, self.vault.service.open_letter(EAU, KASSE, name, container)) is not None:
            self.handed_out(Purpose.FEHLERNACHRICHT, object_id(KASSE, name, "draft").hex())

    @rule(fates=FATES, person=st.sampled_from(PEOPLE), level=st.sampled_from(Level))
    def erase(self, fates: list[Fate], person: bytes, level: Level) -> None:
        who = self.subjects([person])
        if self.run(fates, self.vault.erased(person, level=level)):
            assert not self.subjects([person])
            assert who <= self.gone

    @rule(seconds=st.sampled_from([1, 61, 100, 140]))
    def time_passes(self, seconds: int) -> None:
        self.vault.journal.arrive()
        self.vault.clock.move(seconds)
        self.vault.core.keyring.forget()

    @rule(noted=st.booleans())
    def die_and_start(self, noted: bool) -> None:
        if noted:
            self.vault.core.note_counters()
        self.vault.journal.arrive()
        self.unwrapped_without_entry += self.vault.kek.without_entry
        self.vault = build(self.vault.store, clock=self.vault.clock, journal=self.vault.journal)

    def subjects(self, people: Sequence[bytes] = PEOPLE) -> set[bytes]:
        """Insured persons of these whom the store knows."""
        keys = self.vault.core.keyring.tenant(KASSE)
        return {
            row.pseudonym
            for row in self.vault.store.subjects(KASSE, [keys.look_up(b"person", one) for one in people]).values()
        }

    @invariant()
    def nothing_was_unwrapped_without_an_entry(self) -> None:
        assert not self.unwrapped_without_entry
        assert not self.vault.kek.without_entry

    @invariant()
    def the_numbers_have_no_gap_and_no_number_is_there_twice(self) -> None:
        numbers: list[Any] = sorted(one.release_counter or 0 for one in self.vault.journal.releases())
        ledgers = self.vault.core.ledgers().values()
        assert len(set(numbers)) == len(numbers)
        if not any(one.in_doubt for one in ledgers):
            assert numbers == list(range(1, len(numbers) + 1))
            assert [one.counter for one in ledgers] in ([], [len(numbers)])

    @invariant()
    def every_release_was_announced(self) -> None:
        said: Counter[tuple[Purpose, str | None]] = Counter(
            (one.purpose, self.names(one)) for one in self.vault.journal.releases()
        )
        for what, times in self.read.items():
            assert said[what] >= times

    def teardown(self) -> None:
        if hasattr(self, "vault"):
            self.vault.store.close()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.folder.cleanup()


NoReleaseWithoutLeaf.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestNoReleaseWithoutLeaf = NoReleaseWithoutLeaf.TestCase
