"""How many bytes the connections of a process have received: the kernel counts them, and tells its owner."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h; `struct tcp_info` of linux/tcp.h since Linux 4.1.
_SOCK_DIAG, _BY_FAMILY, _REQUEST_DUMP, _DONE, _ERROR = 4, 20, 0x301, 3, 2
_INFO, _ALL_STATES = 2, 0xFFFFFFFF
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_MESSAGE_BYTES, _INODE_AT, _RECEIVED_AT = 72, 68, 128
_TIMEOUT_S = 2.0


def received_bytes(pid: int) -> dict[int, int] | None:
    """Inode of each TCP connection of a process to what came over it; None where the kernel does not tell."""
    try:
        inodes = set(_inodes(pid))
        return {
            inode: count
            for family in (socket.AF_INET, socket.AF_INET6)
            for inode, count in _counts(family)
            if inode in inodes
        }
    except (OSError, struct.error):
        return None


def _inodes(pid: int) -> Iterator[int]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)  # noqa: PTH115  # `socket:[4242]` is no path
        except FileNotFoundError:
            continue
        if found := re.fullmatch(r"socket:\[(\d+)\]", target):
            yield int(found[1])


def _counts(family: int) -> Iterator[tuple[int, int]]:
    question = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _ALL_STATES)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as line:
        line.settimeout(_TIMEOUT_S)
        line.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + question)
        while True:
            for kind, message in _messages(line.recv(1 << 20)):
                if kind == _ERROR:
                    raise OSError("the kernel does not say what connections received")
                if kind == _DONE:
                    return
                (inode,) = struct.unpack_from("=I", message, _INODE_AT)
                for attribute, value in _attributes(message[_MESSAGE_BYTES:]):
                    if attribute == _INFO and len(value) >= _RECEIVED_AT + 8:
                        yield inode, struct.unpack_from("=Q", value, _RECEIVED_AT)[0]


def _messages(raw: bytes) -> Iterator[tuple[int, bytes]]:
    while len(raw) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(raw)
        yield kind, raw[_HEADER.size : length]
        raw = raw[max(_HEADER.size, (length + 3) & ~3) :]


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    while len(raw) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(raw)
        yield kind, raw[_ATTRIBUTE.size : length]
        raw = raw[max(_ATTRIBUTE.size, (length + 3) & ~3) :]
