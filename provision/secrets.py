"""Take every credential out of a text before it is shown, logged or stored.

Logs of engines, container runtimes and package managers repeat what they were started with. What is masked is
decided three times: by the value (one that this run was given or has read, in whatever form it is written), by the
shape of the value (a key of a known issuer, wherever it stands) and by the name it is given to (`HF_TOKEN=...`,
`"password": "..."`, `--api-key ...`). All quantifiers are bounded, so that a hostile line cannot make masking slow.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache

MASK = "***"

# Shorter ones are words, and stand everywhere.
_LEAST_KNOWN, _MOST_KNOWN = 6, 4096
# So much of a value is still the value: half of it, but not fewer signs than nobody would guess.
_LEAST_PART = 10
_LEAST_BASE64 = 8

# Values that are credentials by their shape alone, whatever they are called.
_SHAPES = (
    r"nvapi-[\w-]{6,256}",
    r"\b(?:hf|api_org)_[A-Za-z0-9]{16,128}",
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,32}",
    r"\bgh[pousr]_[A-Za-z0-9]{16,255}",
    r"\bgithub_pat_\w{16,255}",
    r"\bglpat-[\w-]{16,64}",
    r"\bdckr_(?:pat|oat)_[\w-]{16,64}",
    r"\bpypi-[\w-]{40,255}",
    r"\bxox[abeprs]-[\w-]{10,255}",
    r"\bsk-[A-Za-z0-9][\w-]{18,255}",
    r"\brpa_[A-Z0-9]{20,64}",
    r"\bAIza[\w-]{30,64}",
    r"\bya29\.[\w-]{20,1024}",
    r"\bnpm_[A-Za-z0-9]{30,64}",
    # A JSON web token: two or three base64url parts, the first of which starts with `{"`.
    r"\beyJ[\w-]{8,4096}\.[\w-]{4,8192}(?:\.[\w-]{0,1024})?",
    # The older NGC keys: 84 to 86 characters of base64 and its padding.
    r"\b[A-Za-z0-9]{80,90}==?",
)
_SHAPE = re.compile("|".join(_SHAPES))

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.{0,16384}?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL
)

# `https://user:password@host`, also `https://token@host`; a bare `git@host` is not preceded by `//`.
# A password may hold an `@` itself: the last one ends it.
_URL_LOGIN = re.compile(r"(?<=://)[^\s/?#'\"<>]{1,1024}@(?=[\w.\[-])")

# `Authorization: Bearer ...`, `'authorization': 'Basic ...'`, `Bearer ...` alone.
_SCHEME = re.compile(
    r"\b(Bearer|Basic(?=\s+[\w+/-]{0,512}[\d=]))(\s+|%20)(?!auth|realm|token\b|scheme|credential)[\w.~+/=:-]{6,8192}",
    re.IGNORECASE,
)

_NAMES = (
    r"(?:api|access|secret|private|signing|encryption|account|license|auth|admin|ssh|client|master|subscription)[_-]?key(?:[_-]?id)?"
    r"|passw(?:or)?d|passphrase|pwd|secret|client[_-]?secret|credentials?|authorization|proxy-authorization"
    r"|x-amz-(?:signature|credential|security-token)|signature|sig|set-cookie|cookie|identitytoken|_?auth|jwt"
)
_VALUE = r"(?:\\?\"[^\"\\\n]{1,8192}\\?\"|'[^'\n]{1,8192}'|[^\s'\",;&)}\]]{1,8192})"

# `NAME=value`, `name: value`, `"name": "value"`, `?name=value&`. A `token` needs a look at its value, below.
_NAMED = re.compile(
    rf"(?P<name>(?<![A-Za-z0-9])(?:[A-Za-z0-9.]{{1,40}}[_-]){{0,6}}(?:{_NAMES}))"
    rf"(?P<between>\\?[\"']?\s{{0,4}}[=:]\s{{0,4}}(?:SecretStr\(|[ubr](?=[\"']))?)(?P<value>{_VALUE})",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"(?P<name>(?<![A-Za-z0-9#])(?:[A-Za-z0-9.]{1,40}[_-]){0,6}token)"
    rf"(?P<between>\\?[\"']?\s{{0,4}}(?:=|:)\s{{0,4}})(?P<value>{_VALUE})",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"(?P<name>(?<!\S)--?(?:[a-z0-9]{1,20}-){0,4}(?:api-key|key|token|password|passwd|secret|credentials?))"
    rf"(?P<between>\s{{1,4}})(?P<value>(?!-){_VALUE})"
)
# `docker login -u name -p secret`, `curl -u name:secret`, and the three words of a netrc line.
_LOGIN = re.compile(
    rf"(?P<name>\b(?:docker|podman|nerdctl|helm)\b[^\n]{{0,200}}\blogin\b[^\n]{{0,200}}\s-p)(?P<between>\s?)(?P<value>{_VALUE})"
)
_CURL = re.compile(
    r"(?P<name>\bcurl\b[^\n]{0,400}\s(?:-u|--user))(?P<between>[\s=]{1,4})(?P<value>[^\s:]{1,200}:\S{1,1024})"
)
_NETRC = re.compile(r"(?P<name>\blogin\s{1,8}\S{1,200}\s{1,8}password)(?P<between>\s{1,8})(?P<value>\S{1,1024})")

# A container's environment as data: `{"name": "HF_TOKEN", "value": "..."}`, in YAML on two lines.
_ENTRY = re.compile(
    r"(?P<name>\bname[\"']?\s?[=:]\s{0,4}[\"']?\w{0,60}(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)[\"']?)"
    rf"(?P<between>,?\s{{1,40}}[\"']?value[\"']?\s?[=:]\s{{0,4}})(?P<value>{_VALUE})",
    re.IGNORECASE,
)

# Settings that look like credentials and are none: numbers, switches, the special tokens of a tokenizer.
_PLAIN = re.compile(
    r"\\?[\"']?(?:-?[\d.,%]+|none|null|true|false|\*+|<.{0,100}|x{3,}|\$\{?\w+\}?)\\?[\"']?$", re.IGNORECASE
)
_TOKENIZER = re.compile(
    r"(?:^|[_-])(?:bos|eos|pad|unk|cls|sep|mask|image|video|audio|stop|start|end|special|new|cached|next)[_-]?token$",
    re.IGNORECASE,
)
_ENVIRONMENT_NAME = re.compile(r"[A-Z][A-Z0-9_]*$")
_LEAST_TOKEN = 8


# The credentials of this run.
_known: set[str] = set()


def know(*values: str | None) -> None:
    """Mask these values from now on: whole or the half of them, also as an address, JSON, base64 or hex has them."""
    _known.update(value for value in values if value and _LEAST_KNOWN <= len(value) <= _MOST_KNOWN)


@lru_cache(maxsize=1)
def _pattern(values: frozenset[str]) -> re.Pattern[str]:
    # The longest first: one may be the beginning of another.
    return re.compile("|".join(form for value in sorted(values, key=len, reverse=True) for form in _forms(value)))


def _forms(value: str) -> list[str]:
    """Patterns of what a value may look like."""
    signs = [_sign(sign) for sign in value]
    part = max(_LEAST_PART, len(signs) // 2)
    if len(signs) <= part:
        found = ["".join(signs)]
    else:
        # What begins with its first half, as far as it goes on; and its last half alone.
        rest = "|".join(sorted({_sign(sign) for sign in value}))
        found = ["".join(signs[:part]) + f"(?:{rest}){{0,{len(signs) - part}}}", "".join(signs[-part:])]
    return [*found, *_encoded(value), f"(?i:{value.encode().hex()})"]


def _sign(sign: str) -> str:
    """One sign as it is, or as an address, JSON, Python or HTML writes it."""
    number, plain = ord(sign), re.escape(sign)
    escaped = {"".join(f"%{byte:02x}" for byte in sign.encode())}
    escaped |= {rf"\\u{number:04x}", rf"\\x{number:02x}", f"&#{number};", f"&#x{number:x};"}
    if sign in "\"'\\/":
        escaped.add(rf"\\{re.escape(sign)}")
    if sign == " ":
        escaped.add(r"\+")
    return f"(?:{plain}|(?i:{'|'.join(sorted(escaped))}))"


def _encoded(value: str) -> list[str]:
    """What base64 makes of it, of both alphabets, wherever it stands in what was encoded (`user:password`)."""
    raw, found = value.encode(), []
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        # Signs that what stands before or behind has a part in are left out.
        inner = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        if len(inner) >= _LEAST_BASE64:
            found.append(re.escape(inner).replace(r"\+", "[-+]").replace("/", "[/_]"))
    return found


def mask(text: str) -> str:
    """The text with every credential replaced; masking twice changes nothing more."""
    if _known:
        text = _pattern(frozenset(_known)).sub(MASK, text)
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _URL_LOGIN.sub(f"{MASK}@", text)
    text = _SCHEME.sub(rf"\1\2{MASK}", text)
    text = _SHAPE.sub(MASK, text)
    for pattern in (_NAMED, _OPTION, _LOGIN, _CURL, _NETRC, _ENTRY):
        text = pattern.sub(_hide, text)
    return _TOKEN.sub(_hide_token, text)


def _hide(match: re.Match[str]) -> str:
    value = match["value"]
    if value.lower() in {"none", "null", "true", "false", '""', "''", "bearer", "basic"}:
        return match[0]
    # The quotes stay, so that JSON is still JSON.
    opening = re.match(r"\\?[\"']", value)
    quote = opening[0] if opening and len(value) > 1 and value.endswith(opening[0]) else ""
    return f"{match['name']}{match['between']}{quote}{MASK}{quote}"


def _hide_token(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    if _TOKENIZER.search(name):
        return match[0]
    # An environment variable called so is a credential however short; elsewhere a word or a number is none.
    if _ENVIRONMENT_NAME.match(name) and "=" in match["between"]:
        return _hide(match)
    if len(value) < _LEAST_TOKEN or _PLAIN.match(value) or not any(c.isdigit() for c in value):
        return match[0]
    return _hide(match)
