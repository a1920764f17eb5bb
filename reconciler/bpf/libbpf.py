"""libbpf.so.1 by ctypes: what we call of it, and its messages as an error's text. Version 1.1 is enough.

Pointers of libbpf are `c_void_p` throughout: who owns what is written at the few places that hold one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from reconciler.bpf.syscalls import refusal
from reconciler.errors import FeatureMissing, KernelError

Pointer = int

_pointer, _string, _int, _uint = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_file": (_pointer, (_string, _pointer)),
    "bpf_object__load": (_int, (_pointer,)),
    "bpf_object__close": (None, (_pointer,)),
    "bpf_object__btf": (_pointer, (_pointer,)),
    "bpf_object__next_program": (_pointer, (_pointer, _pointer)),
    "bpf_object__next_map": (_pointer, (_pointer, _pointer)),
    "bpf_program__name": (_string, (_pointer,)),
    "bpf_program__fd": (_int, (_pointer,)),
    "bpf_program__set_autoload": (_int, (_pointer, ctypes.c_bool)),
    "bpf_program__set_flags": (_int, (_pointer, _uint)),
    "bpf_program__attach": (_pointer, (_pointer,)),
    "bpf_link__destroy": (_int, (_pointer,)),
    "bpf_map__name": (_string, (_pointer,)),
    "bpf_map__fd": (_int, (_pointer,)),
    "bpf_map__type": (_uint, (_pointer,)),
    "bpf_map__key_size": (_uint, (_pointer,)),
    "bpf_map__value_size": (_uint, (_pointer,)),
    "bpf_map__max_entries": (_uint, (_pointer,)),
    "bpf_map__map_flags": (_uint, (_pointer,)),
    "bpf_map__inner_map": (_pointer, (_pointer,)),
    "bpf_map__btf_key_type_id": (_uint, (_pointer,)),
    "bpf_map__btf_value_type_id": (_uint, (_pointer,)),
    "bpf_map__pin_path": (_string, (_pointer,)),
    "bpf_map__initial_value": (_pointer, (_pointer, _pointer)),
    "bpf_map__set_max_entries": (_int, (_pointer, _uint)),
    "btf__parse": (_pointer, (_string, _pointer)),
    "btf__load_from_kernel_by_id": (_pointer, (_uint,)),
    "btf__load_vmlinux_btf": (_pointer, ()),
    "btf__free": (None, (_pointer,)),
    "btf__type_by_id": (_pointer, (_pointer, _uint)),
    "btf__name_by_offset": (_string, (_pointer, _uint)),
    "btf__find_by_name": (_int, (_pointer, _string)),
    "btf__find_by_name_kind": (_int, (_pointer, _string, _uint)),
    "btf__resolve_type": (_int, (_pointer, _uint)),
    "libbpf_set_print": (_pointer, (_pointer,)),
    "ring_buffer__new": (_pointer, (_int, _pointer, _pointer, _pointer)),
    "ring_buffer__epoll_fd": (_int, (_pointer,)),
    "ring_buffer__consume": (_int, (_pointer,)),
    "ring_buffer__free": (None, (_pointer,)),
}
_DEBUG = 2  # enum libbpf_print_level
_MESSAGE = 1 << 13
_MESSAGES = 400  # the end of a verifier's log is what matters

SAMPLE = ctypes.CFUNCTYPE(_int, _pointer, _pointer, ctypes.c_size_t)  # ring_buffer_sample_fn
_PRINT = ctypes.CFUNCTYPE(_int, _int, _string, _pointer)


class OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts up to `kernel_log_level`; `size` tells libbpf how much of it we know."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", _string),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", _string),
        ("reserved", ctypes.c_uint32),
        ("kconfig", _string),
        ("btf_custom_path", _string),
        ("kernel_log_buffer", _pointer),
        ("kernel_log_size", ctypes.c_size_t),
        ("kernel_log_level", ctypes.c_uint32),
    )


class Library:
    """The functions above as methods of one object, and what libbpf last said."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise FeatureMissing(
                f"libbpf cannot be loaded: {error}", remedy="install it: apt-get install libbpf1"
            ) from error
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._format = ctypes.CDLL(None).vsnprintf
        self._format.argtypes = (_pointer, ctypes.c_size_t, _string, _pointer)
        self._messages: list[str] = []
        self._print = _PRINT(self._listen)
        self._library.libbpf_set_print(ctypes.cast(self._print, _pointer))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self._library, name)
        return function

    def _listen(self, level: int, format_: bytes, arguments: int) -> int:
        if level < _DEBUG:
            text = ctypes.create_string_buffer(_MESSAGE)
            self._format(text, _MESSAGE, format_, arguments)
            self._messages.append(text.value.decode(errors="replace").rstrip())
            del self._messages[:-_MESSAGES]
        return 0

    def said(self) -> list[str]:
        """Lines since the last call, oldest first."""
        lines = "\n".join(self._messages).splitlines()
        self._messages.clear()
        return lines

    def failure(self, error: int, doing: str, lines: int = 12) -> KernelError:
        """An error whose text ends with the last lines that libbpf (and with it the verifier) said."""
        heard = [line for line in self.said() if line.strip()]
        raised = refusal(error, doing)
        text = "\n  ".join([str(raised), *heard[-lines:]])
        return type(raised)(text, errno=error)


_library: list[Library] = []


def library() -> Library:
    """The one binding of this process, made when it is first needed. Raises FeatureMissing without libbpf.so.1."""
    if not _library:
        _library.append(Library())
    return _library[0]


def pointer(result: int | None, doing: str) -> Pointer:
    """A pointer that must not be NULL; libbpf tells in errno why it is."""
    if not result:
        error = ctypes.get_errno()
        raise library().failure(error, doing)
    return result


def encoded(path: os.PathLike[str] | str) -> bytes:
    return os.fsencode(path)
