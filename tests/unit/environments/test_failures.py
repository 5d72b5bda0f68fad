"""What uv says when an install fails (0.13), and what the user is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeHost

from provision.environments.failures import explain
from provision.locks.lockfile import Lock

LOCK = Lock(Path("/l/engine-1.cp310.x86_64.txt"), "engine-1", "3.10", "x86_64")
MISMATCH = """\
error: Failed to download `beta==1.0`
  cause: Hash mismatch for `beta==1.0`

         Expected:
           sha256:072b

         Computed:
           sha256:872b"""
SIZE = """\
error: Failed to download `alpha==1.0`
  cause: Failed to extract archive: alpha-1.0-py3-none-any.whl
  cause: Bad uncompressed size (got 01312c97, expected 01c9c380) for file: alpha/data.bin"""
FULL = """\
error: Failed to download `alpha==1.0`
  cause: Failed to extract archive: alpha-1.0-py3-none-any.whl
  cause: I/O operation failed during extraction
  cause: failed to write to file `/c/.tmpVn2jrI/alpha/data.bin`: No space left on device (os error 28)"""
NO_NAME = """\
error: Failed to fetch: http://user:hunter2@mirror.example/simple/alpha/
  cause: error sending request for url (http://mirror.example/simple/alpha/)
  cause: client error (Connect)
  cause: dns error
  cause: failed to lookup address information: Name or service not known"""
REFUSED = """\
error: Failed to fetch: http://127.0.0.1:9/simple/alpha/
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)"""
CERTIFICATE = """\
error: Failed to fetch: https://mirror.example/simple/alpha/
  cause: client error (Connect)
  cause: invalid peer certificate: UnknownIssuer"""
NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of delta==1.0 and you require delta==1.0, we can conclude that your requirements are unsatisfiable."""

EXPIRED = """\
error: Failed to fetch: https://mirror.example/simple/alpha/
  cause: client error (Connect)
  cause: invalid peer certificate: certificate expired: verification time 1795807581 (UNIX), but certificate is not valid after 1609459200 (185 seconds ago)"""
REFUSED_LOGIN = """\
error: No solution found when resolving dependencies
  cause: Because alpha was not found in the package registry and you require alpha==1.0, we can conclude that your requirements are unsatisfiable.

hint: An index URL (https://mirror.example/simple) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)"""
FORBIDDEN = """\
  x Failed to download `alpha==1.0`
  ├─▶ Failed to fetch:
  │   `https://mirror.example/alpha-1.0.whl`
  ╰─▶ HTTP status client error (403 Forbidden) for url
      (https://mirror.example/alpha-1.0-py3-none-any.whl)"""


@pytest.mark.parametrize(
    ("output", "expected", "hint"),
    [
        (MISMATCH, "the wheel of `beta==1.0` is not the one that was locked: its sha256 differs", "mirror"),
        (SIZE, "the wheel `alpha-1.0-py3-none-any.whl` is damaged or was cut short", "run the command again"),
        (FULL, "the disk is full", "UV_CACHE_DIR"),
        (NO_NAME, "the package index is out of reach: `http://***@mirror.example/simple/alpha/`", "UV_DEFAULT_INDEX"),
        (REFUSED, "the package index is out of reach: `http://127.0.0.1:9/simple/alpha/`", "HTTPS_PROXY"),
        (CERTIFICATE, "the index's certificate is not trusted", "SSL_CERT_FILE"),
        (EXPIRED, "the index's certificate has expired, or is not valid yet", "`date`"),
        (
            REFUSED_LOGIN,
            "the index lets nobody in who has no right to it (401 or 403): `https://mirror.example/simple`",
            "UV_INDEX_NAME_USERNAME",
        ),
        (
            FORBIDDEN,
            "the index lets nobody in who has no right to it (401 or 403): `https://mirror.example/alpha-1.0.whl`",
            "login",
        ),
        (NO_VERSION, "the index has no wheel that fits `delta==1.0`", "mirror"),
    ],
)
def test_explained(output: str, expected: str, hint: str) -> None:
    error = explain(f"`uv pip sync` exited 1:\n{output}", LOCK, FakeHost())
    lines = str(error).splitlines()
    assert lines[0] == expected
    assert lines[-1] == "`engine-1.cp310.x86_64.txt` is not installed; nothing was switched"
    assert error.hint and hint in error.hint
    assert error.exit_status == 5
    assert "hunter2" not in str(error)


def test_what_is_not_known_is_repeated() -> None:
    error = explain("`uv pip sync` exited 2:\nerror: the moon is full", LOCK, FakeHost())
    assert "the moon is full" in str(error) and error.hint is None
