"""Where mail for other domains goes: one smarthost, or a host per domain. Values of the configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from schleuse.errors import MalformedError
from schleuse.mail.retry import Schedule


class BadRouteError(MalformedError):
    """The configuration of the outbound routes contradicts itself; the operator can change it."""

    code = "outbound.bad-route"


class TLSMode(StrEnum):
    """implicit: TLS from the first octet, port 465, as between Fachdienste (kim.md § 11, RFC 8314 § 3.3)."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    NONE = "none"  # on this machine only


@dataclass(frozen=True, slots=True)
class Credentials:
    """password_file: its content without the last line end is the password; read for each connection."""

    user: str
    password_file: Path


@dataclass(frozen=True, slots=True)
class Route:
    """One next host. ca_file: trust only this PEM; None: what the machine trusts.

    client_certificate, client_key: PEM, for hosts that ask for one (kim.md § 11). connections: at the same time.
    Raises: BadRouteError.
    """

    host: str
    port: int = 465
    tls: TLSMode = TLSMode.IMPLICIT
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    credentials: Credentials | None = None
    connections: int = 4

    def __post_init__(self) -> None:
        if not self.host or not 0 < self.port < 65536 or self.connections < 1:
            raise BadRouteError(f"a route needs a host, a port and one connection, found {self.host}:{self.port}")
        if self.tls is TLSMode.NONE and not _is_loopback(self.host):
            raise BadRouteError(
                f"the route to {self.host} is without TLS, which only this machine may be (kim.md § 11)"
            )
        if (self.client_certificate is None) != (self.client_key is None):
            raise BadRouteError(f"the route to {self.host} needs both of client certificate and key, or none")


@dataclass(frozen=True, slots=True)
class Routes:
    """domains: lower-case domain to its host; smarthost: for all others. own_hosts: our names; none may be a target.

    Raises: BadRouteError.
    """

    domains: Mapping[str, Route] = field(default_factory=dict)
    smarthost: Route | None = None
    own_hosts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for route in (*self.domains.values(), self.smarthost):
            if route is not None and route.host.lower().rstrip(".") in self.own_hosts:
                raise BadRouteError(f"the route to {route.host} leads back to ourselves")

    def find(self, address: str) -> Route | None:
        """The route for an address, or None when there is none."""
        return self.domains.get(address.rpartition("@")[2].lower(), self.smarthost)


@dataclass(frozen=True, slots=True)
class OutboundConfig:
    """hostname: our name in EHLO and Received. max_in_flight: mails in memory at the same time.

    poll: how often the queue is looked at when nobody wakes us. idle: how long an unused connection stays.
    connect_timeout: name, TCP, TLS and greeting. reply_timeout: RFC 5321 § 4.5.3.2.1-4. data_timeout: for the reply
    to the content, 10 minutes there (§ 4.5.3.2.6): giving up sooner makes duplicates.
    """

    hostname: str
    routes: Routes
    schedule: Schedule = field(default_factory=Schedule)
    max_in_flight: int = 64
    poll: timedelta = timedelta(seconds=5)
    idle: timedelta = timedelta(seconds=30)
    connect_timeout: timedelta = timedelta(seconds=30)
    reply_timeout: timedelta = timedelta(minutes=5)
    data_timeout: timedelta = timedelta(minutes=10)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
