"""Programs and links by bpf(2): loading a few instructions, running one on a packet, attaching, and what they are."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.bpf import syscalls
from reconciler.bpf.syscalls import address, attempt, bpf, packed

SCHED_CLS, TRACEPOINT, XDP, CGROUP_SOCK_ADDR, RAW_TRACEPOINT = 3, 5, 6, 18, 17
TRACING, LSM, SK_LOOKUP, SYSCALL = 26, 29, 30, 31

XDP_DEVICE, TCX_INGRESS, TCX_EGRESS = 37, 46, 47  # enum bpf_attach_type
LINK_CGROUP, LINK_XDP, LINK_TCX = 3, 6, 11  # enum bpf_link_type

XDP_HAS_FRAGS = 1 << 5  # BPF_F_*, for loading

_OUTPUT = 1 << 14  # a packet may grow by encapsulation, no more than this
_RUN = struct.Struct("=IIIIQQIIIIQQIII")  # BPF_PROG_TEST_RUN
_SUMMED = 1 << 2  # BPF_F_TEST_SKB_CHECKSUM_COMPLETE
_LICENSE = b"GPL\0"
_LOAD = "IIQQIIQII16sIIIIQIIQII"  # union bpf_attr of BPF_PROG_LOAD up to attach_btf_id
_MAP_IDS = 64


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """`maps` are the ids of all maps that the program uses."""

    kind: int
    id: int
    name: str
    maps: frozenset[int]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """Of a TCX or XDP link; `ifindex` is 0 once the device is gone or the link was detached."""

    kind: int
    id: int
    program: int
    ifindex: int
    attach_type: int


class CgroupLinkInfo(NamedTuple):
    """Of a link on a cgroup; `cgroup` is the inode number of its directory, 0 once that is gone."""

    kind: int
    id: int
    program: int
    cgroup: int
    attach_type: int


class Run(NamedTuple):
    """`result` is what the program returned; `context` is as it left it."""

    result: int
    duration_ns: int
    packet: bytes
    context: bytes


class Instruction(NamedTuple):
    """struct bpf_insn; `target` and `source` are registers."""

    code: int
    target: int = 0
    source: int = 0
    offset: int = 0
    value: int = 0

    def encoded(self) -> bytes:
        return struct.pack("<BBhi", self.code, self.source << 4 | self.target, self.offset, self.value)


# The few that we write ourselves, named as in the kernel's Documentation/bpf/standardization/instruction-set.rst.
def load_map_value(target: int, map_descriptor: int, offset: int = 0) -> tuple[Instruction, Instruction]:
    """target = address of the only value of an array map, plus `offset` (BPF_PSEUDO_MAP_VALUE)."""
    return Instruction(0x18, target, 2, 0, map_descriptor), Instruction(0, value=offset)


def load(target: int, source: int, offset: int, size: int) -> Instruction:
    """target = *(source + offset), of 4 or 8 bytes."""
    return Instruction({4: 0x61, 8: 0x79}[size], target, source, offset)


def store(target: int, source: int, offset: int, size: int) -> Instruction:
    """*(target + offset) = source, in one access of 4 or 8 bytes."""
    return Instruction({4: 0x63, 8: 0x7B}[size], target, source, offset)


def move(target: int, value: int) -> Instruction:
    return Instruction(0xB7, target, value=value)


def copy(target: int, source: int) -> Instruction:
    return Instruction(0xBF, target, source)


def call(helper: int) -> Instruction:
    """r0 = helper(r1, ..., r5), numbered as in enum bpf_func_id."""
    return Instruction(0x85, value=helper)


def leave() -> Instruction:
    return Instruction(0x95)


def load_program(
    kind: int,
    instructions: Sequence[Instruction],
    *,
    name: str = "",
    attach_type: int = 0,
    flags: int = 0,
    attach_to: int = 0,
) -> int:
    """A file descriptor of a program. `attach_to`: the BTF id of a kernel function, for tracing programs."""
    code = b"".join(instruction.encoded() for instruction in instructions)
    head = (kind, len(instructions), address(code), address(_LICENSE), 0, 0, 0, 0, flags, name.encode()[:15], 0)
    attributes = packed(_LOAD, *head, attach_type, 0, 0, 0, 0, 0, 0, 0, attach_to, size=128)
    return bpf(syscalls.PROGRAM_LOAD, attributes, f"loading program {name}")


def verifier_log(kind: int, instructions: Sequence[Instruction], *, flags: int = 0) -> str:
    """What the verifier says of instructions; loaded or not, they are gone afterwards."""
    code, said = b"".join(instruction.encoded() for instruction in instructions), bytearray(1 << 14)
    log = 1, len(said), address(said)
    head = (kind, len(instructions), address(code), address(_LICENSE), *log, 0, flags, b"verifier_log", 0)
    descriptor, error = attempt(syscalls.PROGRAM_LOAD, packed(_LOAD, *head, *(0,) * 9, size=128))
    if not error:
        os.close(descriptor)
    return syscalls.text(said)


def open_raw_tracepoint(name: str, program: int) -> int:
    """Attach to a raw tracepoint, or with an empty name to what the program was loaded for, until it is closed."""
    encoded = name.encode() + b"\0"
    where = address(encoded) if name else 0
    return bpf(
        syscalls.RAW_TRACEPOINT_OPEN, packed("QI", where, program, size=16), f"attaching to {name or 'a function'}"
    )


def info(descriptor: int) -> ProgramInfo:
    """At most 64 maps are listed, which is what the verifier allows (MAX_USED_MAPS)."""
    numbers = bytearray(4 * _MAP_IDS)
    raw = bytearray(80)  # struct bpf_prog_info up to `name`
    struct.pack_into("=IQ", raw, 52, _MAP_IDS, address(numbers))
    syscalls.information(descriptor, raw, "reading about a program")
    kind, number = struct.unpack_from("=II", raw)
    count = struct.unpack_from("=I", raw, 52)[0]
    maps = struct.unpack_from(f"={min(count, _MAP_IDS)}I", numbers)
    return ProgramInfo(kind, number, syscalls.text(raw[64:80]), frozenset(maps))


def run(descriptor: int, packet: bytes = b"", context: bytes = b"", repeat: int = 1, *, summed: bool = False) -> Run:
    """Run a program on a packet (BPF_PROG_TEST_RUN); `context` is a struct __sk_buff or xdp_md, or empty.

    `duration_ns` is the kernel's mean over `repeat` runs, each on what the last one made of the packet. `summed`: a
    device has added up the packet (CHECKSUM_COMPLETE, kernel 6.17), and KernelError is raised if that is not so after.
    """
    out, context_out = bytearray(len(packet) + _OUTPUT), bytearray(len(context))
    return _run(descriptor, packet, out, bytearray(context), context_out, repeat, _SUMMED if summed else 0)


def run_syscall(descriptor: int, context: bytes = b"") -> Run:
    """Run a program of type SYSCALL; it changes its context in place."""
    inout = bytearray(context)
    done = _run(descriptor, b"", bytearray(), inout, bytearray(), 0, 0)
    return done._replace(context=bytes(inout))


def _run(
    descriptor: int, packet: bytes, out: bytearray, context: bytearray, context_out: bytearray, repeat: int, flags: int
) -> Run:
    attributes = bytearray(_RUN.size + 4)
    where = address(packet) if packet else 0, address(out) if out else 0
    contexts = address(context) if context else 0, address(context_out) if context_out else 0
    sizes, rest = (len(context), len(context_out)), (flags, 0, 0)
    _RUN.pack_into(attributes, 0, descriptor, 0, len(packet), len(out), *where, repeat, 0, *sizes, *contexts, *rest)
    bpf(syscalls.TEST_RUN, attributes, "running a program")
    _, result, _, length, _, _, _, duration_ns, *_ = _RUN.unpack_from(attributes)
    return Run(result, duration_ns, bytes(out[:length]), bytes(context_out))


def attach_tcx(program: int, ifindex: int, attach_type: int) -> int:
    """A link that runs the program behind those that are on the hook already; it lasts as long as its descriptor."""
    attributes = packed("IIII", program, ifindex, attach_type, 0, size=64)
    return bpf(syscalls.LINK_CREATE, attributes, f"attaching a program to device {ifindex}")


def attach_xdp(program: int, ifindex: int, flags: int) -> int:
    """A link that runs the program alone at the hook; it lasts as long as its descriptor. `flags`: XDP_FLAGS_*."""
    attributes = packed("IIII", program, ifindex, XDP_DEVICE, flags, size=64)
    return bpf(syscalls.LINK_CREATE, attributes, f"attaching an XDP program to device {ifindex}")


def attach_cgroup(program: int, directory: int, attach_type: int) -> int:
    """A link that runs the program beside those of others on the hook; it lasts as long as its descriptor."""
    attributes = packed("IIII", program, directory, attach_type, 0, size=64)
    return bpf(syscalls.LINK_CREATE, attributes, "attaching a program to a cgroup")


def replace_program(link: int, program: int) -> None:
    """What the link runs, from one packet to the next."""
    bpf(syscalls.LINK_UPDATE, packed("IIII", link, program, 0, 0), "replacing the program of a link")


def detach(link: int) -> None:
    """Take a link off its hook; the link itself remains."""
    bpf(syscalls.LINK_DETACH, packed("I", link), "detaching a link")


def link_info(descriptor: int) -> LinkInfo:
    raw = syscalls.information(descriptor, bytearray(32), "reading about a link")
    kind, number, program, _, ifindex, attach_type = struct.unpack_from("=IIIIII", raw)
    return LinkInfo(kind, number, program, ifindex, XDP_DEVICE if kind == LINK_XDP else attach_type)  # it tells none


def cgroup_link_info(descriptor: int) -> CgroupLinkInfo:
    raw = syscalls.information(descriptor, bytearray(32), "reading about a link")
    kind, number, program, _, cgroup, attach_type = struct.unpack_from("=IIIIQI", raw)
    return CgroupLinkInfo(kind, number, program, cgroup, attach_type)
