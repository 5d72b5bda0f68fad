from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.facts.smi_text import FIELDS
from provision.host.masking import Masks

KEPT = [
    "0000:61:00.0",
    "00000000:61:00.0",
    "NVIDIA UNIX Open Kernel Module for aarch64  580.126.09  Release Build  (dvs-builder@U22)",
    "Linux version 5.15.167.4-microsoft-standard-WSL2",
    "Wed Jan  7 22:35:57 UTC 2026",
    "127.0.0.1 0.0.0.0 ::1 ::",
    "nvidia-smi --query-gpu=" + ",".join(FIELDS),
    '{"Runtimes":{"nvidia":{"path":"nvidia-container-runtime"}},"ServerVersion":"28.3.3"}',
    "0, [N/A], 00000000:61:00.0, NVIDIA A40, 8.6, 46068, 1, [N/A], Enabled, 550.90.07",
]
GONE = [
    ("GPU-8e100991-ce97-6694-b8eb-b8b1ff5053af", "8e100991"),
    ("MIG-dcf43e8e-5d19-5fa8-8b1d-8aaca1e467f0", "dcf43e8e"),
    ("Serial Number                         : 1563221019375", "1563221019375"),
    ('"serial": "AB12-CD34"', "AB12"),
    ("listening on 10.12.14.16:8000", "10.12.14"),
    ("inet6 fe80::1a2b:3c4d:5e6f:7a8b/64", "1a2b"),
    ("at 2a02:8109:0:1:2:3:4:5", "8109"),
    ("link/ether 9c:6b:00:12:34:56", "9c:6b"),
    ('"ID":"41fd2451-a058-4f42-a22c-82bedaa9bdbc","Name":"spark-7"', "spark-7"),
    ("/home/alice/.pyenv/versions", "alice"),
    ("python serve.py --api-key verysecretkey1", "verysecret"),
    ("HF_TOKEN=hf_abcdefghijklmnopqrst serve", "abcdefgh"),
    ("ssh alice@gpu-box-17.lab.example", "gpu-box-17"),
]


@pytest.mark.parametrize("text", KEPT)
def test_what_identifies_nobody_stays(text: str) -> None:
    assert Masks(["nvidia", "docker", "root", "vm"]).text(text) == text


@pytest.mark.parametrize(("text", "secret"), GONE)
def test_what_identifies_goes(text: str, secret: str) -> None:
    assert secret not in Masks(["alice", "gpu-box-17.lab.example", "gpu-box-17", "spark-7"]).text(text)


def test_equal_ids_stay_equal_and_others_apart() -> None:
    one, other = "GPU-8e100991-ce97-6694-b8eb-b8b1ff5053af", "GPU-938c4705-98bf-1735-e98b-c2a5872a8022"
    masks = Masks()
    assert masks.text(f"{one} {other} {one}").split() == [masks.text(one), masks.text(other), masks.text(one)]
    assert masks.text(one) != masks.text(other)
    assert masks.text(one) == "GPU-00000000-0000-0000-0000-000000000001"
    assert Masks().text(one) == masks.text(one)


def test_names_that_stand_alone() -> None:
    masks = Masks(["alice"])
    assert masks.name("root") == "root"
    assert masks.name("alice") == masks.text("alice") == "masked-1"
    assert masks.text("/home/alice/x") == "/home/masked-1/x"


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    assert isinstance(Masks(["alice"]).text(text), str)
