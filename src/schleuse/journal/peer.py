"""Who is at the other end of a Unix socket: what the kernel says, not the peer (journal.md § 13)."""

from __future__ import annotations

import socket
import struct

_CREDENTIALS = struct.Struct("3i")  #: struct ucred of unix(7): pid, uid, gid


def peer_uid(sock: socket.socket) -> int:
    """The user of the process at the other end, as the kernel knows it (SO_PEERCRED, unix(7))."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
