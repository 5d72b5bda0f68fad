"""What parsers make of what the field prints: one string for each quirk."""

from __future__ import annotations

import pytest

from provision.errors import ProbeError
from provision.facts import containers, cpu, driver, nvml, operating_system, pci, pythons, slurm, smi_text, storage
from provision.facts.driver_failures import FAILURES, explain
from provision.facts.topology import parse_topology
from provision.report import Severity

LINE = "0, GPU-1, 00000000:61:00.0, NVIDIA A40, 8.6, 46068, 1, [N/A], Enabled, 550.90.07"
UNKNOWN = (
    *("[N/A]", "N/A", "[Not Supported]", "Not Supported", "[Unknown Error]", "Insufficient Permissions", ""),
    *("[GPU requires reset]", "[GPU is lost]", "[Requested functionality has been deprecated]"),
)


@pytest.mark.parametrize("cell", UNKNOWN)
def test_a_missing_value_is_unknown_and_never_zero(cell: str) -> None:
    assert smi_text.value(cell) is None
    gpu = smi_text.parse_csv(LINE.replace("46068", cell)).gpus[0]
    assert gpu.memory_mib is None
    assert "memory_mib" not in gpu.sources


def test_csv_goes_by_position_whatever_lies_between() -> None:
    answer = smi_text.parse_csv(f"some notice\n{LINE}\nWARNING: infoROM is corrupted at gpu 0000:61:00.0\n")
    assert [gpu.name for gpu in answer.gpus] == ["NVIDIA A40"]
    assert [problem.severity for problem in answer.problems] == [Severity.WARNING]
    assert answer.driver == "550.90.07"


@pytest.mark.parametrize(
    ("header", "driver_version", "cuda"),
    [
        ("| NVIDIA-SMI 565.72    Driver Version: 566.14    CUDA Version: 12.7     |", "566.14", "12.7"),
        ("| NVIDIA-SMI 535.104.05  Driver Version: 535.104.05   CUDA Version: N/A      |", "535.104.05", None),
        ("DRIVER version      : 595.80\nCUDA Version        : 13.2", None, "13.2"),
        ("    Driver Version                            : 580.142\n    CUDA Version     : Not Found", "580.142", None),
    ],
)
def test_the_header_names_driver_and_cuda(header: str, driver_version: str | None, cuda: str | None) -> None:
    assert smi_text.parse_header(header) == (driver_version, cuda)


def test_mig_instances_belong_to_the_gpu_above_them() -> None:
    text = (
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-1)\n  MIG 3g.40gb     Device  0: (UUID: MIG-1)\n"
        "GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-2)\n  MIG 1g.10gb+me  Device  0: (UUID: MIG-2)\n"
    )
    assert smi_text.parse_list(text) == {0: ("3g.40gb",), 1: ("1g.10gb+me",)}


def test_the_table_of_a_mig_machine_stops_before_its_instances() -> None:
    text = (
        "|   0  NVIDIA H100 80GB HBM3          On  |   00000000:00:09.0 Off |                   On |\n"
        "| N/A   42C    P0             98W /  700W |      59MiB /  81559MiB |     N/A      Default |\n"
        "|                                         |                        |              Enabled |\n"
        "| MIG devices:                                                                            |\n"
        "|  0    2   0   0  |              26MiB / 40448MiB    | 60      0 |  3   0    3    0    3 |\n"
    )
    (gpu,) = smi_text.parse_table(text).gpus
    assert (gpu.name, gpu.memory_mib, gpu.memory_used_mib, gpu.ecc) == ("NVIDIA H100 80GB HBM3", 81559, 59, True)
    assert gpu.mig is not None and gpu.mig.enabled


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("550.144.03\n", "550.144.03"),
        ("580.142\n", "580.142"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  595.80  Release Build  (b@U22-I3)", "595.80"),
    ],
)
def test_driver_versions_keep_their_own_text(text: str, version: str) -> None:
    assert driver.parse_version(text) == version


def test_a_driver_file_without_a_version_cannot_tell() -> None:
    with pytest.raises(ProbeError, match="no driver version"):
        driver.parse_version("NVRM version: unknown")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch", "mismatch"),
        ("Driver Not Loaded", "not-loaded"),
        ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "library-missing"),
        ("Unable to determine the device handle for GPU0000:41:00.0: Unknown Error", "lost"),
        ("GPU is lost.  Reboot the system to recover this GPU", "lost"),
        ("No devices were found", "no-devices"),
        ("Insufficient Permissions", "permission"),
        ("something new", None),
    ],
)
def test_failures_are_known_by_their_text(text: str, name: str | None) -> None:
    failure = explain(text, None)
    assert (failure.name if failure else None) == name


def test_a_failure_is_known_by_its_status_where_nothing_is_said() -> None:
    for failure in FAILURES:
        found = explain("", failure.status)
        assert found == failure
        assert failure.fix


def test_nvml_says_what_it_cannot_do() -> None:
    refused = nvml.parse_nvml('{"error": {"code": 18, "text": "Driver/library version mismatch"}}')
    assert refused is not None and refused.problems[0].check == "facts.driver"
    assert nvml.parse_nvml('{"error": {"code": 12, "text": "NVML Shared Library Not Found"}}') is None
    assert nvml.parse_nvml('{"error": {"code": null, "text": "No module named pynvml"}}') is None
    strange = nvml.parse_nvml('{"error": {"code": 999, "text": "Unknown Error"}}')
    assert strange is not None and strange.problems[0].severity is Severity.ERROR


def test_nvml_names_the_gpu_that_is_lost() -> None:
    answer = nvml.parse_nvml(
        '{"driver": "550.90.07", "cuda": "12.4", "gpus": [], "errors": [{"index": 1, "code": 15, "text": "GPU is lost"}]}'
    )
    assert answer is not None and "GPU 1" in answer.problems[0].text


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"gpus": 1}', '{"error": 3}', "Traceback"])
def test_nvml_answers_that_are_none(text: str) -> None:
    with pytest.raises(ProbeError):
        nvml.parse_nvml(text)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("glibc 2.35\n", "2.35"),
        ("ldd (Ubuntu GLIBC 2.35-0ubuntu3.8) 2.35\nCopyright", "2.35"),
        ("ldd (Debian GLIBC 2.36-9+deb12u7) 2.36", "2.36"),
        ("ldd (GNU libc) 2.17", "2.17"),
        ("musl libc (x86_64)", None),
        ("", None),
    ],
)
def test_glibc(text: str, version: str | None) -> None:
    assert operating_system.parse_glibc(text) == version


def test_os_release_is_read_as_a_shell_would() -> None:
    text = '# comment\nID="rocky"\nVERSION_ID=\'9.4\'\nID_LIKE="rhel centos fedora"\nBROKEN="it\'s\nPRETTY_NAME=Rocky\n'
    found = operating_system.parse_os_release(text)
    assert (found.id, found.version, found.like) == ("rocky", "9.4", ("rhel", "centos", "fedora"))
    with pytest.raises(ProbeError):
        operating_system.parse_os_release("NAME=nothing")


def test_processors() -> None:
    assert cpu.parse_arch("arm64\n") == "aarch64"
    arm = cpu.parse_cpuinfo("processor : 0\nFeatures : fp asimd\n\nprocessor : 1\n")
    assert (arm.cores, arm.model, arm.flags) == (2, "", ("fp", "asimd"))


def test_limits() -> None:
    assert storage.parse_limit("34359738368\n") == 32768
    assert storage.parse_limit("max\n") is None
    assert storage.parse_groups("4:memory:/docker/1f\n0::/\n") == ("/docker/1f", "/docker")
    assert storage.parse_groups("0::/user.slice/a.scope") == ("/user.slice/a.scope", "/user.slice")
    assert storage.parse_groups("0::/") == ()
    assert storage.parse_meminfo("MemTotal:       125512345 kB\nHugePages_Total:       0\n") == {"MemTotal": 122570}


@pytest.mark.parametrize(
    ("out", "err", "words"),
    [
        ("", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?", "not running"),
        ('{"ServerErrors": ["permission denied while trying to connect"]}', "", "permission denied"),
        ("", "", "no server version"),
    ],
)
def test_docker_says_why_it_cannot_be_asked(out: str, err: str, words: str) -> None:
    engine = containers.parse_docker(out, err)
    assert not engine.running and engine.problem is not None and words in engine.problem


def test_docker_and_podman() -> None:
    found = containers.parse_docker(
        '{"ServerVersion": "28.3.3", "Runtimes": {"runc": {}}, "SecurityOptions": ["name=rootless"],'
        ' "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}'
    )
    assert (found.cdi, found.rootless, found.nvidia_runtime) == (True, True, False)
    podman = '{"host": {"security": {"rootless": true}}, "version": {"Version": "4.9.3"}}'
    assert containers.parse_docker(podman).name == "podman"
    assert containers.parse_podman(podman).rootless
    assert containers.parse_podman('{"Client": {"Version": "4.3.1", "OsArch": "linux/amd64"}}').version == "4.3.1"
    assert containers.parse_podman('{"Client": null}').problem == "podman names no version"
    assert containers.parse_init_groups("1:name=systemd:/kubepods/besteffort/pod1") == "kubernetes"
    assert containers.parse_init_groups("0::/init.scope") is None


def test_pythons() -> None:
    assert pythons.parse_python("pypy\t3.10.14\t/opt/pypy/bin/pypy3\t1\t1\n") is None
    found = pythons.parse_python("cpython\t3.13.0rc1\t/usr/bin/python3.13\t0\t1\n")
    assert found is not None and (found.version, found.venv, found.headers) == ("3.13.0rc1", False, True)


def test_slurm() -> None:
    assert slurm.parse_version("slurm-wlm 21.08.5") == "21.08.5"
    assert slurm.parse_version("sinfo: command of something else") is None
    assert slurm.parse_ping("Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b is UP\n")
    assert not slurm.parse_ping("Slurmctld(primary) at a is DOWN")


def test_topology_reads_only_the_cells_of_gpus() -> None:
    text = (
        "nvidia-smi topo -m\n3 NICs found in the topology, only displaying 2\n\n"
        "\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tNIC10NIC11\tCPU Affinity\tNUMA Affinity\x1b[0m\n"
        "GPU0\t X \tNV4\tNODE\tPXB\tPIXNODE\n"
        "GPU1\tNV4\t X \tNODE\n"
        "GPU2\tNODE\tNODE\t X \t0-31,64-95\t0\t\tN/A\n"
        "NIC0\tPXB\tNODE\tNODE\t X \n\nLegend:\n\n  GPU0 GPU1 = nothing to read\n"
    )
    assert [(link.a, link.b, link.kind) for link in parse_topology(text)] == [
        *((0, 1, "NV4"), (0, 2, "NODE"), (1, 2, "NODE"))
    ]


def test_addresses_become_those_of_sysfs() -> None:
    assert pci.parse_address("0000000F:01:00.0") == "000f:01:00.0"
    assert pci.parse_address("00000000:61:00.0") == "0000:61:00.0"
    assert pci.parse_address("") is None
