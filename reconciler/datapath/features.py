"""What this kernel can do, found out by trying: each probe makes the thing it asks for, and lets it go.

A feature that is not needed says what is done without it. About 30 ms for all of them; nothing is left behind.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconciler.bpf import btf, maps, programs, syscalls
from reconciler.bpf.bpffs import MOUNT_POINT, is_bpffs
from reconciler.bpf.programs import Instruction, call, leave, move
from reconciler.bpf.syscalls import held
from reconciler.datapath.link_kinds import is_known
from reconciler.errors import KernelError

_HELPER_REDIRECT_PEER, _HELPER_FOR_EACH = 155, 164  # enum bpf_func_id
_SLEEPABLE = 1 << 4
_CGROUP_INET4_CONNECT, _FENTRY, _LSM_MAC, _SK_LOOKUP = 10, 24, 27, 36  # enum bpf_attach_type
_RETURN_0 = (move(0, 0), leave())
_LOOPBACK = 1
_SYSCALL_TRACEPOINTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


@dataclass(frozen=True, slots=True)
class Feature:
    """`detail` is what was found, or the kernel's reason; `consequence` is what its absence means."""

    name: str
    present: bool
    needed: bool
    consequence: str
    detail: str = ""


Probe = Callable[[], str]  # what was found; raises KernelError or OSError if it is not there


@dataclass(frozen=True, slots=True)
class _Question:
    name: str
    probe: Probe
    consequence: str
    needed: bool = False


def probe() -> tuple[Feature, ...]:
    """Every feature, in the order of `plumb features`. Raises nothing: an absent one says why."""
    return tuple(_ask(question) for question in _questions())


def has(name: str) -> bool:
    """One feature by its name. Raises KeyError for a name that `probe` does not have."""
    return _ask({question.name: question for question in _questions()}[name]).present


def missing(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """Those that are needed and not there."""
    return tuple(feature for feature in features if feature.needed and not feature.present)


def _ask(question: _Question) -> Feature:
    try:
        found, present = question.probe(), True
    except (KernelError, OSError) as error:
        found, present = str(error), False
    return Feature(question.name, present, question.needed, question.consequence, found)


def _questions() -> tuple[_Question, ...]:
    return (
        _Question("kernel", platform.release, "", needed=True),
        _Question("bpf", _bpf, "nothing can be loaded: run as root, or with CAP_BPF and CAP_NET_ADMIN", needed=True),
        _Question("bpffs", _bpffs, "nothing can be pinned: mount -t bpf bpf /sys/fs/bpf", needed=True),
        _Question("btf", _btf, "tampering is noticed only by comparing: programs that trace the kernel need its types"),
        _Question("memlock", _memlock, "before kernel 5.11 maps count against RLIMIT_MEMLOCK: raise it"),
        _Question("syscall_programs", _syscall_program, "the generation cannot be switched in one word", needed=True),
        _Question("ring_buffer", _ring_buffer, "programs cannot tell what they do", needed=True),
        _Question("batch_lpm", _batch_lpm, "tries are read and written row by row, several times slower"),
        _Question("for_each_map_elem", _for_each, "expired flows cannot be collected in the kernel", needed=True),
        _Question(
            "redirect_peer", _redirect_peer, "packets between workloads take one queue more (option redirect_peer)"
        ),
        _Question("tcx", _tcx, "programs are attached as clsact filters"),
        _Question("xdp", _xdp, "tc does at node devices what xdp.mode would have done before it"),
        _Question("xdp_fragments", _xdp_fragments, "xdp.mode native is refused by devices whose MTU is above one page"),
        _Question("sock_addr", _sock_addr, "services are translated by packet, not at connect(2)"),
        _Question("sk_lookup", _sk_lookup, "a proxy needs a routing rule to receive connections"),
        _Question("raw_tracepoint", _raw_tracepoint, "the kernel's drops cannot be watched"),
        _Question("syscall_tracepoints", _syscall_tracepoints, "tampering is found by comparing, without its author"),
        _Question("fentry", _fentry, "kernel functions are traced by tracepoints only"),
        _Question("lsm", _lsm, "processes cannot be held to policy, only watched"),
        _Question("vxlan", lambda: is_known("vxlan"), "no tunnels to other hosts by vxlan"),
        _Question("geneve", _geneve, "no tunnels to other hosts by Geneve: our programs need an ifb device to hang on"),
        _Question(
            "decap_l3", _decap_l3, "Geneve carries no IPv6 between nodes' IPv4 addresses, nor IPv4 between IPv6 ones"
        ),
        _Question("wireguard", lambda: is_known("wireguard"), "no encryption between hosts by WireGuard"),
        _Question("veth", lambda: is_known("veth"), "workloads cannot be connected", needed=True),
        _Question("netkit", lambda: is_known("netkit"), "workloads are connected by veth pairs"),
        _Question("address_protocol", _address_protocol, "our addresses are told by the device that they are on"),
    )


def _loaded(
    kind: int, instructions: tuple[Instruction, ...] = _RETURN_0, *, attach_type: int = 0, flags: int = 0
) -> int:
    return programs.load_program(kind, instructions, name="probe", attach_type=attach_type, flags=flags)


def _load(kind: int, instructions: tuple[Instruction, ...] = _RETURN_0, *, attach_type: int = 0) -> str:
    with held(_loaded(kind, instructions, attach_type=attach_type)):
        return ""


def _bpf() -> str:
    with held(maps.create(maps.ARRAY, 4, 4, 1, name="probe")):
        return _load(programs.SCHED_CLS)


def _bpffs() -> str:
    if not is_bpffs(MOUNT_POINT):
        raise KernelError(f"no BPF file system at {MOUNT_POINT}; it is mounted when it is first needed")
    return str(MOUNT_POINT)


def _btf() -> str:
    btf.of_running_kernel()
    return ""


def _memlock() -> str:
    if _release() >= (5, 11):
        return "counted by cgroup"
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY:
        raise KernelError(f"limited to {soft} bytes")
    return "unlimited"


def _syscall_program() -> str:
    with held(_loaded(programs.SYSCALL, flags=_SLEEPABLE)) as program:
        programs.run_syscall(program)
    return ""


def _ring_buffer() -> str:
    with held(maps.create(maps.RINGBUF, 0, 0, os.sysconf("SC_PAGE_SIZE"), name="probe")):
        return ""


def _batch_lpm() -> str:
    with held(maps.create(maps.LPM_TRIE, 8, 4, 1, flags=maps.NO_PREALLOC, name="probe")) as trie:
        if error := maps.update_batch(trie, np.zeros(1, np.uint64), np.zeros(1, np.uint32)):
            raise syscalls.refusal(error, "writing a batch to a trie")
    return ""


def _for_each() -> str:
    """It takes a callback; a verifier that knows the helper finds fault before that, with its first argument."""
    log_text = programs.verifier_log(programs.SYSCALL, (call(_HELPER_FOR_EACH), leave()), flags=_SLEEPABLE)
    if "expected=map_ptr" not in log_text:
        raise KernelError(log_text.strip().splitlines()[-1] if log_text else "the verifier says nothing")
    return ""


def _redirect_peer() -> str:
    return _load(programs.SCHED_CLS, (move(1, _LOOPBACK), move(2, 0), call(_HELPER_REDIRECT_PEER), leave()))


def _tcx() -> str:
    with (
        held(_loaded(programs.SCHED_CLS, (move(0, -1), leave()))) as program,
        held(programs.attach_tcx(program, _LOOPBACK, programs.TCX_INGRESS)),
    ):
        return ""


def _xdp() -> str:
    return _load(programs.XDP, (move(0, 2), leave()))


def _xdp_fragments() -> str:
    with held(_loaded(programs.XDP, (move(0, 2), leave()), flags=programs.XDP_HAS_FRAGS)):
        return ""


def _sock_addr() -> str:
    return _load(programs.CGROUP_SOCK_ADDR, (move(0, 1), leave()), attach_type=_CGROUP_INET4_CONNECT)


def _sk_lookup() -> str:
    return _load(programs.SK_LOOKUP, (move(0, 1), leave()), attach_type=_SK_LOOKUP)


def _raw_tracepoint() -> str:
    with (
        held(_loaded(programs.RAW_TRACEPOINT)) as program,
        held(programs.open_raw_tracepoint("kfree_skb", program)),
    ):
        return ""


def _syscall_tracepoints() -> str:
    for folder in _SYSCALL_TRACEPOINTS:
        if Path(folder, "events/syscalls/sys_enter_bpf").is_dir():
            return folder
    with (
        held(_loaded(programs.RAW_TRACEPOINT)) as program,
        held(programs.open_raw_tracepoint("sys_enter", program)),
    ):
        return "raw"


def _fentry() -> str:
    return _attached_to("bpf_fentry_test1", programs.TRACING, _FENTRY)


def _lsm() -> str:
    return _attached_to("bpf_lsm_file_open", programs.LSM, _LSM_MAC)


def _attached_to(function: str, kind: int, attach_type: int) -> str:
    number = btf.of_running_kernel().function(function)
    if not number:
        raise KernelError(f"no kernel function {function}")
    code = (move(0, 0), leave())
    with (
        held(programs.load_program(kind, code, name="probe", attach_type=attach_type, attach_to=number)) as program,
        held(programs.open_raw_tracepoint("", program)),
    ):
        return ""


def _geneve() -> str:
    is_known("ifb")
    return "wrapped by our own programs"


def _decap_l3() -> str:
    """BPF_F_ADJ_ROOM_DECAP_L3_*: a packet of one IP version out of one of the other."""
    if _release() < (6, 3):
        raise KernelError(f"kernel {platform.release()} is older than 6.3")
    return ""


def _address_protocol() -> str:
    if _release() < (5, 18):
        raise KernelError(f"kernel {platform.release()} is older than 5.18")
    return ""


def _release() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()))
