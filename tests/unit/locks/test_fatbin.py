"""Reading fat binaries: one that nvcc made, some made here, and whatever a damaged file may hold."""

from __future__ import annotations

import base64
import contextlib
import io
import lzma
import random
import struct
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.errors import UsageError
from provision.locks.coverage import of_wheel
from provision.locks.fatbin import Code, read, scan

MAGIC = 0xBA55ED50

# An object of nvcc 13.0.88 for sm_80, sm_90a, sm_120f, sm_121a and PTX of sm_80, its code zeroed: only headers are read.
# cuobjdump lists the third as sm_120; that it is for the family shows only in the entry's flags.
MADE_BY_NVCC = lzma.decompress(
    base64.b85decode(
        "{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;4m);NnHRxkwt`PJ&C5;oTjWUE6dPTP`~_ygJAjLMMe_ouvsNHQ=FMT1K!pN5r)&-a1="
        "V1s~W2=uYx+{stNbfxw<HCDoR#-3+>jqcScxs;wtKa@t3Q9Z4MIog9aIr^MyFV`Ff06;%~}7N=m4t(c?49^xLtYZiDeCDCWxLw"
        "~kVA#WEnK!xzej#^8J_NX^poPLDB%<imSu^R6SlOC^VQBHU%o<IQgrKd?Qv(&n_vMmE-XPTz{llU~a&y^McKQeBD;g-7dmQR#Z"
        "cva=8*)G(z!ufjc$pEUhFUkxbd)x%$|6R%cUV$*GiV^gY^KXrUWQ0fWsGleM%Ie_J^xn)HH;G#(`BmsLsEJi}UN$7YXT-Ei9ej"
        "K5Fhv&jXx_<W2SLth+E9_aDzrk^~Ej5M!OyoX?VX-InEp^AgIkeJqtOg1&yODCrZx@>N?pS-yw<9<<kFV_cd8UmV%k7Fm^uZr{"
        "84qHNVCoZ*erQ4fO1Lon?6lZ|atYU<<`nP4|Lb);1$~+jL~$<5qFaA)wb^v|6!Kl`xbSioeo}!(Qx>U<d~X@Wsifo3-Wxu&i4("
        "pA_$a=(Kw<9aSIlku-SNYRS>+j#S;K{Kb<HbvNqUR%c1;SyNd8Zm^;JHeLxe3drvGD-A2mOxKo;>z;~aaOn6Km&oREod$a`kJh"
        "V3|>55$7XTojmrLP5f}<GN$6Ip16KDxe)j%gs$QfGHFaJ*0{I=>?^gCPK)S2K<j1io`DqRuSs>`hfRE%0B4bGJ2X1YM0sbYEAC"
        "|r=b6qfwsM0Y8@+O9N%pK0i%yDoUbqGii|SsD_G9&T2_(zGRW;I5Cg0@WM#Y87m=u4DpFYvGn&oT`7B4qX_uF56<K!!u!O_0IC"
        "s2W);5M-wj9te0)-U*Nuo|n;8+?!7!T~n=3uKDLLt#(`%R%K2fP_|*{AD<1kCx6DGpBQ7Gy=r52bQ`vvnB37Smc<Lu}jOk<B+7"
        "0WNgO0TTOi@B({ME5rtr(809ljf3E2LGxJ^J=#<va4h@^>7AH}UUl(j5g6_nbYa#N=0V!kr;C)DtyqZVeC|qu8?%JCC0ManZj;"
        "oek8qdRb)@6r;Lkfyd+jQs{7g$@zRuaL{Vu`4wkHDz-P}s*y!~GUM$U$j&D+s+7*@Jz?^Sx$VgaqdPH~4{!O~fRom0^q@t<q(Q"
        "9&NrTJhcCUf!?>XQ%b$v)*;!W-8lzvmBJQ>$s8(onk#Yvl(Jb@U7kv<)O#A)a~#ZOQhAsyrv{B^`H6Bi5pPu{wg1-bs~aAUW&$"
        "G1E!1QqBz)&Nvka-A;Z1>ha6Jrl>=rvE4@``(VovwB%Ma1-x`kjNJ0J&nqd{~au3i$;G0c`OO8{W#y#`4#oM`HMo!5omABDT&V"
        ";zaRq1S?f&rSz7n+4Zb(7xyhUl=Nr=^J>v4cWXO}JDTdIchXC621yL_cJwndq&mM+7i3bl5p6Az;cx&B`!TQpn^9U4-yn4LO&z"
        "laE9XNlY!eFR3!@K)}6R$NQpm@qgYa9pgB`U0E2&yM#UPFFXfB_j$QoX5`7$UGKSc4(Nvfy4LO5SM}+5Fk+{!3~rX7K#lm0I+h"
        "uA|AZl;g@P7*`nj>@vO$fu+}#&sdg;5JJ&!Y;PcQMP&X5s#ju^?D@dB5cXM@_hf9ZpG4y36DVSXn!uc;edm_UO^2cXhLiA5x4m"
        "IH<yXmJ9;5}n$?3n9U|9~j;N6&d5XZ)5A*w*ZlSn~vxX+jp4yPfktJ?YDp-;czf>ypSeOs_2X5QuT7?Yp5Q7eLGwWjR!M@GbrB"
        "hi^>5}HDgI)&!mYHQ4i!8!T#K{>G<wX_GrN%n=LdKXJHtMEBoo?1=oOevG*)c6iPC#1YrAW-<#flCW@iCAH>d&H`D`?QsUxg(l"
        "!8}q5OF)YPE5Aw<zIpmpy-c_4eOz>?NAK>j{gC<pW@l`(=ks<s0gj`&S-E&a>@EQ3#MQ;U6Bg328-heYX#XGX9KY2ht(5v^$>k"
        "ngVak^;nz}0mtB1>;G$PPUV~{IoayTg5PuUN>d}lzYE@K_r(QAcGKFs0j5`r*NA;e=qB)J_rM4MEe|CMB$ZT?IvLoCOEe;$Gm="
        "XltTNpFW>fdnh01``aVu&D*whSdA7HGsErkKsFyX?1C?3N5)+sF(^1(ci2gdd)?8hpW^>C~L9x{0@p?K`eXc8OMkU2NL^u8<>y"
        ";j>XOv?gSS~!g5IiK?2{zoPi^R`IxM~Ih}7nOV2SO|ycxN2WjBxEqAzOODTeBao5$;7L5?^_@WAc9!|!+BQaMW6*Fvc+cyM&Rf"
        ">BoW>FF6#l}nM_Pr+dOOO_b`~C)}R|7Ti#WMaGQv%SsMudCt1M`xjtR1GB2UsPDZmhPrt&RKz{By?Up!P^OT$qtV-rLciM(euZ"
        "@%~79DvzbP`*0p<vuS0-TX&F<#3mX~p>3q!mwDo(bpD-<Xw5{%w^R=TyGe`I!BgfzRGV1+5!}w&7WdaLi#`a}q)DO_>Wv9OtwQ"
        "mtiSiV|*%6MgHL#;$y)|Hu?&^pgjM0s~OiA?*-$?m;f^ATcS=^;yy&ot=`hPJLG;6kRO)K99}!>4RJu}0o}k!6%Q!$wjd3|AyA"
        "fzWB`^C9;gu^C)r={IGgxqJ2d=nm4Sv9cdCiaCya`d*3Z}wLM6uBr;w=K)ASmAYwrcu<^WagysyTcGFrCH4Cd{-C#_ooo-#wuw"
        "VCJ%I5(>zShCM`b@GXE1yT0gYVQzt=sWb}C0P}`h1((+00000aG!r6oi9R900HF?uwVcH)J&PMvBYQl0ssI200dcD"
    )
)


def entry(kind: int, sm: int, flags: int = 0x11, isa: tuple[int, int] = (9, 0), payload: bytes = b"\0" * 40) -> bytes:
    extended = b"\0" * (48 if sm >= 100 else 0)
    header = struct.pack(
        "<HHIQIIHHIIIQ", kind, 0x101, 64 + len(extended), len(payload), 0, 0, isa[1], isa[0], sm, 0, 0, flags
    )
    return header.ljust(64, b"\0") + extended + payload


def fat_binary(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return struct.pack("<IHHQ", MAGIC, 1, 16, len(content)) + content


def shared_object(sections: dict[bytes, bytes], *, kind: int = 1) -> bytes:
    """A 64-bit ELF file with these sections, as little of one as can be."""
    names = b"\0.shstrtab\0" + b"\0".join(sections) + b"\0"
    body, headers = b"", [(0, 0, 0, 0, 0, 0, 0, 0, 0, 0), (1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)]
    for name, content in sections.items():
        headers.append(
            (names.index(b"\0" + name + b"\0") + 1, kind, 0, 0, 64 + len(names) + len(body), len(content), 0, 0, 8, 0)
        )
        body += content
    offset = 64 + len(names) + len(body)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 0, offset, 0, 64, 0, 0, 64, len(headers), 1
    )
    return header + names + body + b"".join(struct.pack("<IIQQQQIIQQ", *one) for one in headers)


def scanned(content: bytes) -> dict[frozenset[Code], int]:
    return dict(scan(io.BytesIO(content), name="k.so"))


def test_what_nvcc_made_is_read_as_it_was_asked_for() -> None:
    wanted = {
        Code("elf", 80),
        Code("elf", 90, "a"),
        Code("elf", 120, "f"),
        Code("elf", 121, "a"),
        Code("ptx", 80, "", (9, 0)),
    }
    assert scanned(MADE_BY_NVCC) == {frozenset(wanted): 1}
    assert sorted(code.capability for code in wanted) == ["12.0f", "12.1a", "8.0", "8.0", "9.0a"]


def test_both_sections_are_read_and_counted() -> None:
    one, other = fat_binary(entry(2, 80), entry(2, 90, 0x100011)), fat_binary(entry(2, 80))
    content = shared_object(
        {b".nv_fatbin": one + bytes(24) + one + bytes(5000), b"__nv_relfatbin": other, b".text": other}
    )
    assert scanned(content) == {
        frozenset({Code("elf", 80), Code("elf", 90, "a")}): 2,
        frozenset({Code("elf", 80)}): 1,
    }


def test_entries_that_are_no_code_are_passed_over() -> None:
    mixed = fat_binary(entry(8, 90), entry(0x40, 90), entry(0x10, 100, 0x01200011), entry(1, 90, 0x108011, (8, 7)))
    assert scanned(shared_object({b".nv_fatbin": mixed})) == {
        frozenset({Code("elf", 100, "f"), Code("ptx", 90, "a", (8, 7))}): 1
    }


@pytest.mark.parametrize(
    ("isa", "toolkit"),
    [
        ((7, 8), "11.8"),
        ((8, 1), "12.1"),
        ((8, 5), "12.5"),
        ((8, 7), "12.8"),
        ((8, 8), "12.9"),
        ((9, 0), "13.0"),
        ((9, 2), "13.2"),
    ],
)
def test_the_ptx_version_names_the_toolkit(isa: tuple[int, int], toolkit: str) -> None:
    assert Code("ptx", 80, "", isa).toolkit == toolkit


def test_a_library_without_fat_binaries_has_none() -> None:
    assert scanned(shared_object({b".text": b"x"})) == {}
    assert scanned(shared_object({b".nv_fatbin": b""})) == {}
    assert scanned(struct.pack("<16s48x", b"\x7fELF\x02\x01")) == {}


def test_sections_without_content_in_the_file_are_not_read() -> None:
    assert scanned(shared_object({b".nv_fatbin": fat_binary(entry(2, 80))}, kind=8)) == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it ends before 0x40"),
        (b"MZ" + bytes(100), "is not a 64-bit"),
        (b"\x7fELF\x01\x01" + bytes(100), "is not a 64-bit"),
        (shared_object({b".nv_fatbin": b"garbage" * 9}), "no fat binary at 0x"),
        (shared_object({b".nv_fatbin": struct.pack("<IHHQ", MAGIC, 2, 16, 0)}), "no fat binary at 0x"),
        (shared_object({b".nv_fatbin": struct.pack("<IHHQ", MAGIC, 1, 16, 999)}), "is longer than its section"),
        (shared_object({b".nv_fatbin": fat_binary(struct.pack("<HHIQ48x", 2, 0, 8, 8))}), "does not fit"),
        (shared_object({b".nv_fatbin": fat_binary(entry(2, 80)[:-8] + b"")}), "does not fit"),
        (shared_object({b".nv_fatbin": b""})[:-64], "it ends before"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        scanned(content)


def test_a_file_is_read_like_a_member_of_a_wheel(tmp_path: Path) -> None:
    content = shared_object({b".nv_fatbin": fat_binary(entry(2, 80), entry(1, 90, 0x11, (8, 8)))})
    (tmp_path / "ops.so").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "k-1.0-cp310-abi3-linux_x86_64.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("k/ops.abi3.so", content)
        wheel.writestr("k/libhost.so.1", shared_object({b".text": b"x"}))
        wheel.writestr("k/script.so", b"INPUT(-lm)")
        wheel.writestr("k/ops.py", b"")
    (library,) = of_wheel(tmp_path / "k-1.0-cp310-abi3-linux_x86_64.whl")
    assert (library.name, library.native, library.ptx, library.ptx_cuda) == (
        "k/ops.abi3.so",
        ("8.0",),
        ("9.0",),
        "12.9",
    )
    assert read(tmp_path / "ops.so") == scanned(content)


class Counted(io.BytesIO):
    """A file that counts how often it was read from further back than where it stood."""

    back = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.back += offset < self.tell()
        return super().seek(offset, whence)


def test_a_large_library_is_read_forward() -> None:
    large = fat_binary(entry(2, 80, payload=bytes(9000)), entry(2, 90, payload=bytes(70000))) + bytes(40)
    stream = Counted(shared_object({b".nv_fatbin": large * 50, b".debug": bytes(100_000)}))
    assert sum(scan(stream, name="k.so").values()) == 50
    # From the section headers at the end, once to the names and once to the section.
    assert stream.back <= 2


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "k.so")


@given(st.binary(max_size=400))
def test_no_bytes_end_in_a_traceback(content: bytes) -> None:
    for damaged in (content, b"\x7fELF\x02\x01" + content, shared_object({b".nv_fatbin": content})):
        assert_answered(damaged)


@given(st.integers(0, 2**32), st.integers(1, 30))
@settings(max_examples=300)
def test_no_damage_to_a_real_one_ends_in_a_traceback(seed: int, places: int) -> None:
    """Bytes changed near the headers, and an end cut off: an answer or a `UsageError`, never anything else."""
    chance = random.Random(seed)  # noqa: S311
    damaged = bytearray(
        shared_object({b".nv_fatbin": fat_binary(entry(2, 80), entry(2, 121, 0x100011)), b"__nv_relfatbin": b""})
    )
    for _ in range(places):
        damaged[chance.randrange(len(damaged))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
    assert_answered(bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])]))


def assert_answered(content: bytes) -> None:
    """Codes or a `UsageError`, and soon."""
    start = time.monotonic()
    with contextlib.suppress(UsageError):
        assert all(isinstance(code, Code) for codes in scanned(content) for code in codes)
    assert time.monotonic() - start < 2
