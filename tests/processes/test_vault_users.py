"""Vault, other roles and strangers as different users of the machine: who reaches what, says the kernel."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.platform import ROOT, Platform, build_home, platform, until

from schleuse.identifiers import IK

#: Users that every Debian has, standing for those of deploy/README.md, and all roles' common group.
ROLES, VAULT, STRANGER = "daemon", "games", "nobody"
GROUP = pwd.getpwnam(ROLES).pw_gid if os.name == "posix" else 0
KASSE = IK("109900011")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can become other users"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed (Debian: util-linux)"),
]

#: What one user can do at the vault, and which of its files he can read.
PROBE = """
import json, sys
from pathlib import Path
from schleuse.config import read_config
from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.vault.client import VaultClient
from schleuse.vault.contracts import Document, Named
home, ik = Path(sys.argv[1]), IK("109900011")
found = {}
def attempt(name, act):
    try:
        found[name] = act()
    except (Error, OSError) as error:
        found[name] = getattr(error, "code", type(error).__name__)
client = VaultClient(home / "run" / "vault.sock")
attempt("file", lambda: len(client.file(ik, [Document(client.pseudonyms(ik, [Named(b"A123456780", b"c")])[0].subject,
    "urn:uuid:x", "xml", b"<eAU/>")])))
attempt("status", lambda: sorted(client.status())[0])
for path in sys.argv[2:]:
    attempt(path, lambda: bool(Path(path).read_bytes()) and "read")
print(json.dumps(found))
"""


class Separated:
    """A platform whose processes run as users of their own, in a home as deploy/README.md lays it out."""

    def __init__(self, site: Platform, vault_home: Path) -> None:
        self.site = site
        self.vault_home = vault_home

    def argv(self, user: str, *command: str, group: int = GROUP) -> list[str]:
        return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *command]

    def start(self, role: str, user: str) -> None:
        with (self.site.home.parent / f"{role}.log").open("ab") as log:
            self.site.processes[role] = subprocess.Popen(
                self.argv(user, sys.executable, "-m", "schleuse", "run", role, "--home", str(self.site.home)),
                env={**os.environ, **ENVIRONMENT},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, role: str) -> str:
        return (self.site.home.parent / f"{role}.log").read_text(errors="replace")

    def probe(self, user: str, *paths: Path, group: int = GROUP) -> dict[str, object]:
        command = self.argv(user, sys.executable, "-c", PROBE, str(self.site.home), *map(str, paths), group=group)
        done = subprocess.run(
            command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found


ENVIRONMENT = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "SCHLEUSE_LANG": "en"}


@pytest.fixture
def separated() -> Iterator[Separated]:
    # Not tmp_path: the folders above it are root's alone.
    base = Path(tempfile.mkdtemp(prefix="schleuse-users-"))
    base.chmod(0o755)
    vault_home = base / "vault-home"
    vault_home.mkdir(mode=0o700)
    shutil.chown(vault_home, VAULT, GROUP)
    section = (
        f'[vault]\nfolder = "{vault_home}"\nunlock_file = "{vault_home}/unlock.key"\n'
        f'database = "sqlite:///{vault_home}/vault.sqlite"\nclients = [{{ user = "{ROLES}", role = "eau" }}]\n'
    )
    journal = f'[journal]\nvaults = ["{VAULT}"]\nwriters = ["{ROLES}"]\n'
    try:
        changes = {"[vault]\n": section, "[journal]\n": journal, "erase_key_files = true": "erase_key_files = false"}
        with platform(build_home(base / "base"), base / "home", changes) as site:
            lay_out(site.home, site)
            yield Separated(site, vault_home)
    finally:
        shutil.rmtree(base)


def lay_out(home: Path, site: Platform) -> None:
    """What deploy/README.md says: the configuration is root's, shared folders are sticky, key files the vault's."""
    for path in (home, *home.rglob("*")):
        shutil.chown(path, ROLES, GROUP)
        path.chmod(0o750 if path.is_dir() else 0o640)
    (home / "run").mkdir(exist_ok=True)
    for path in (home, home / "run", home / "schleuse.toml", *(home / "insurers").rglob("*.pub.pem")):
        shutil.chown(path, "root", GROUP)
    for path in (home, home / "run"):
        path.chmod(0o1770)
    for insurer in site.config.insurers:
        for _, key in (*insurer.encryption, insurer.signature):
            shutil.chown(key, VAULT, GROUP)
            key.chmod(0o600)
    for path in (home / "journal").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (home / "journal").chmod(0o700)


@pytest.fixture
def up(separated: Separated) -> Separated:
    separated.start("journal", ROLES)
    separated.start("vault", VAULT)
    ready = separated.site.ready
    until(lambda: ready("vault"), f"the vault to be ready\n{separated.log('vault')}\n{separated.log('journal')}", 60)
    return separated


def test_each_user_reaches_what_is_his_and_nothing_else(up: Separated) -> None:
    home = up.site.home
    key = next(iter(up.site.config.insurers)).encryption[0][1]
    vaults_own = [up.vault_home / "kek.sealed", up.vault_home / "unlock.key", up.vault_home / "vault.sqlite", key]
    journals_own = sorted((home / "journal" / "keys").iterdir())

    roles = up.probe(ROLES, *vaults_own, home / "schleuse.toml")
    assert roles["file"] == 1
    assert roles[str(home / "schleuse.toml")] == "read"
    assert {roles[str(path)] for path in vaults_own} == {"PermissionError"}

    vault = up.probe(VAULT, *journals_own)
    assert vault["file"] == "vault.not-allowed", "the vault's own user gives orders and files nothing"
    assert vault["status"] == "denied_since_start"
    assert {vault[str(path)] for path in journals_own} == {"PermissionError"}, "the journal's half of each key"

    stranger = up.probe(STRANGER, home / "schleuse.toml", group=pwd.getpwnam(STRANGER).pw_gid)
    assert stranger == {
        "file": "vault.unavailable",
        "status": "vault.unavailable",
        str(home / "schleuse.toml"): "PermissionError",
    }
    assert "vault.stranger" not in up.log("vault"), "the folder keeps strangers out before the socket does"


def test_a_user_of_the_group_without_a_role_is_hung_up_on_and_told_of(up: Separated) -> None:
    found = up.probe(STRANGER)
    assert found == {"file": "vault.unavailable", "status": "vault.unavailable"}
    until(lambda: "vault.stranger" in up.log("vault"), "the alarm")
    lines = "".join(path.read_text() for path in (up.site.home / "trail").glob("vault-*.jsonl"))
    assert f'\\"uid\\":{pwd.getpwnam(STRANGER).pw_uid}' in lines, "and an entry, as of any attempt"


def test_what_the_roles_make_is_their_own(up: Separated) -> None:
    users = {pwd.getpwnam(name).pw_uid: name for name in (ROLES, VAULT)}
    assert up.probe(ROLES)["file"] == 1
    for path in up.vault_home.rglob("*"):
        assert users[path.stat().st_uid] == VAULT
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    socket = (up.site.home / "run" / "vault.sock").stat()
    assert (users[socket.st_uid], socket.st_gid, stat.S_IMODE(socket.st_mode)) == (VAULT, GROUP, 0o660)


def test_the_roles_user_cannot_put_itself_in_the_vaults_place(up: Separated) -> None:
    """The folders are sticky: what root and the vault own, the roles' user can neither replace nor take away."""
    for target in ("run/vault.sock", "schleuse.toml", "run"):
        code = "import os, sys; os.rename(sys.argv[1], sys.argv[1] + '.away')"
        command = up.argv(ROLES, sys.executable, "-c", code, str(up.site.home / target))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "PermissionError" in done.stderr, target


def test_a_vault_whose_user_the_journal_does_not_know_opens_nothing(separated: Separated) -> None:
    separated.start("journal", ROLES)
    # The user of the roles may write entries, and is not the vault: no share, no entry about keys.
    shutil.chown(separated.vault_home, ROLES, GROUP)
    for insurer in separated.site.config.insurers:
        for _, key in (*insurer.encryption, insurer.signature):
            shutil.chown(key, ROLES, GROUP)
    separated.start("vault", ROLES)
    until(lambda: "vault.waiting" in separated.log("vault"), "the vault to say that it waits", 60)
    found = separated.probe(ROLES)
    assert found["file"] in {"vault.unavailable", "vault.key-missing"}
    assert not separated.site.ready("vault")
