"""How a process of this home comes by its copy of the switch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.identifiers import IK
from schleuse.processes.mandates import mandates_of
from schleuse.processes.operators import rights_of
from schleuse.scopes import NONE, Direction, Scope, Service, atom
from schleuse.shutdown.news import NewsBook
from schleuse.switch.copy import LocalSwitch, spare_of
from schleuse.switch.documents import Rights
from schleuse.switch.effects import EffectBook
from schleuse.switch.log import SwitchLog

#: Name of the copy of the switch that commands share.
COMMAND = "command"

#: What the roles of today enforce: all scopes that a fence, an effect or a proof is about.
ENFORCED: tuple[tuple[Service, Direction], ...] = (
    (Service.EAU_INTAKE, Direction.ACCEPT),
    (Service.EAU_INTAKE, Direction.PROCESS),
    (Service.EAU_INTAKE, Direction.DELIVER),
    (Service.EAU_EMPLOYER_ANSWER, Direction.DELIVER),
    (Service.KIM_MAIL, Direction.ACCEPT),
    (Service.KIM_MAIL, Direction.DELIVER),
    (Service.KIM_MAIL, Direction.READ),
    (Service.KEYS, Direction.PROCESS),
    (Service.KEYS, Direction.ADMIN),
)


def news_book(config: Config) -> NewsBook:
    """When those who wait hear from us next."""
    every = timedelta(minutes=config.control.news_minutes)
    return NewsBook(config.switch_folder / "news", rights_of(config), every)


def switch_log(config: Config, rights: Rights | None = None) -> SwitchLog:
    """The log of accepted commands of this home. rights: of whoever has read the operators' keys already."""
    rights = rights_of(config) if rights is None else rights
    return SwitchLog(config.switch_folder / "log", rights, spare=spare_of(config.switch_folder / "copies"))


def open_switch(config: Config, worker: str, *, floor: int = 0) -> LocalSwitch:
    """The copy of one process. worker: its name, the same after a restart. floor: of its database (`fence.head`)."""
    rights = rights_of(config)
    log, mandates = switch_log(config, rights), mandates_of(config, rights)
    return LocalSwitch(log, copy_of(config, worker), utc_now, floor=floor, mandates=mandates)


def copy_of(config: Config, worker: str) -> Path:
    """Where this process keeps its copy."""
    return config.switch_folder / "copies" / f"{worker}.json"


def effect_book(config: Config) -> EffectBook:
    """Where workers note what they did when they saw an epoch."""
    return EffectBook(config.switch_folder / "effects")


def enforced_atoms(config: Config) -> Sequence[Scope]:
    """Every atom that a role of this home enforces: each of ENFORCED for each insurer, and for none."""
    tenants = [NONE, *(IK(one.ik).value for one in config.insurers)]
    return [atom(service, tenant, direction) for service, direction in ENFORCED for tenant in tenants]
