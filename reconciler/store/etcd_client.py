"""The etcd3 package on today's protobuf: import `Etcd3Client` and `etcdrpc` from here, never from etcd3.

etcd3 0.12.0 ships message modules that only protobuf 3 can import. The descriptors that stand in them, serialized, are
as good as ever: they are read without importing the modules, and modules made from them take the old ones' places.
Source: etcd3/etcdrpc/*_pb2.py, google.protobuf.message_factory.
"""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "etcd3.etcdrpc"
_IN_ORDER_OF_IMPORT = ("kv", "auth", "rpc")


def _folder() -> Path:
    """Of the package's message modules; importing etcd3 itself would import them."""
    spec = find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise ImportError("the package etcd3 is not installed: pip install etcd3==0.12.0")
    return Path(spec.origin).parent / "etcdrpc"


def _serialized(source: Path) -> bytes:
    """What the module hands to its `FileDescriptor(serialized_pb=...)`: a literal, or `_b(literal)` in latin-1."""
    for call in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "FileDescriptor":
            value = next(keyword.value for keyword in call.keywords if keyword.arg == "serialized_pb")
            literal = ast.literal_eval(value.args[0] if isinstance(value, ast.Call) else value)
            return literal if isinstance(literal, bytes) else str(literal).encode("latin-1")
    raise ImportError(f"{source} has no serialized descriptor: etcd3 0.12.0 is needed")


def _module(name: str, serialized: bytes, pool: descriptor_pool.DescriptorPool) -> ModuleType:
    """The messages of one file and the values of its enumerations, as protoc's own modules have them."""
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    pool.Add(file)
    descriptor = pool.FindFileByName(file.name)
    module = ModuleType(name)
    for message, described in descriptor.message_types_by_name.items():
        setattr(module, message, message_factory.GetMessageClass(described))
    for enumeration in descriptor.enum_types_by_name.values():
        for value in enumeration.values:
            setattr(module, value.name, value.number)
    return module


def _install() -> None:
    if "etcd3" in sys.modules:  # then it imported as it is
        return
    pool = descriptor_pool.DescriptorPool()  # our own: other packages may bring files of the same name
    for file in _IN_ORDER_OF_IMPORT:
        name = f"{_PACKAGE}.{file}_pb2"
        sys.modules[name] = _module(name, _serialized(_folder() / f"{file}_pb2.py"), pool)


_install()

from etcd3 import Etcd3Client, etcdrpc  # noqa: E402  (only now can it be imported)

__all__ = ["Etcd3Client", "etcdrpc"]
