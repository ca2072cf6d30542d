"""Where this kernel keeps the fields that the BPF programs read, from its own type information.

BCC does not relocate field accesses, and its compiler often cannot read a new kernel's headers;
the offsets come from `/sys/kernel/btf/vmlinux` instead and reach the C programs as macros. The
format is Documentation/bpf/btf.rst of the kernel's sources.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SourceError

BTF_PATH = Path("/sys/kernel/btf/vmlinux")

_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F
# Words after the three common ones: (fixed, for each of vlen), by BTF_KIND_*.
_EXTRA = (
    (0, 0), (1, 0), (0, 0), (3, 0), (0, 3), (0, 3), (0, 2), (0, 0), (0, 0), (0, 0),
    (0, 0), (0, 0), (0, 0), (0, 2), (1, 0), (0, 3), (0, 0), (1, 0), (0, 0), (0, 3),
)  # fmt: skip
_PTR, _STRUCT, _UNION, _ENUM, _TYPEDEF, _FUNC, _FUNC_PROTO = 2, 4, 5, 6, 8, 12, 13
_MODIFIERS = (_TYPEDEF, 9, 10, 11, 18)


class BtfError(SourceError):
    """The kernel's type information is absent, unreadable, or has no field."""


@dataclass(frozen=True, slots=True)
class Member:
    """Offset of a field in bytes and the id of its type."""

    offset: int
    type_id: int


class Btf:
    """One kernel's types."""

    def __init__(self, data: bytes) -> None:
        """Raises BtfError for what is not BTF of this machine's byte order."""
        try:
            magic, version, _, header_len, type_off, type_len, str_off, str_len = (
                _HEADER.unpack_from(data)
            )
        except struct.error as error:
            raise BtfError("The kernel's type information is cut short.") from error
        if magic != _MAGIC or version != 1:
            raise BtfError("The kernel's type information has an unknown format.")
        start = header_len + type_off
        end = header_len + str_off
        if start % 4 or type_len % 4 or start + type_len > len(data) or end + str_len > len(data):
            raise BtfError("The kernel's type information is cut short.")
        self._words = memoryview(data)[start : start + type_len].cast("I")
        self._strings = data[end : end + str_len]
        self._at = array("I", [0])
        self._index()

    @classmethod
    def of_kernel(cls, path: Path = BTF_PATH) -> Btf:
        """The running kernel's. Raises BtfError."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise BtfError(
                f"{path} cannot be read: {error.strerror}.",
                "Boot a kernel built with CONFIG_DEBUG_INFO_BTF (every current Debian kernel is).",
            ) from error

    def _index(self) -> None:
        words, at = self._words, self._at
        position, count = 0, len(words)
        append = at.append
        while position < count:
            append(position)
            info = words[position + 1]
            kind = info >> 24 & 0x1F
            if kind >= len(_EXTRA):
                raise BtfError(f"The kernel's type information has an unknown kind ({kind}).")
            fixed, each = _EXTRA[kind]
            position += 3 + fixed + each * (info & 0xFFFF)

    def _name(self, offset: int) -> bytes:
        return self._strings[offset : self._strings.index(b"\0", offset)]

    def _kind(self, type_id: int) -> int:
        return self._words[self._at[type_id] + 1] >> 24 & 0x1F

    def _find(self, name: str, kind: int) -> int:
        """Id of the first type of that name and kind, 0 where there is none."""
        wanted = b"\0" + name.encode() + b"\0"
        strings, words = self._strings, self._words
        offsets = set()
        found = strings.find(wanted)
        while found >= 0:
            offsets.add(found + 1)
            found = strings.find(wanted, found + 1)
        for type_id in range(1, len(self._at)):
            position = self._at[type_id]
            if words[position] in offsets and words[position + 1] >> 24 & 0x1F == kind:
                return type_id
        return 0

    def struct(self, name: str) -> int:
        """Id of the structure `name`. Raises BtfError."""
        type_id = self._find(name, _STRUCT)
        if not type_id:
            raise BtfError(f"This kernel has no struct {name}.")
        return type_id

    def typedef(self, name: str) -> int:
        """Id of the type definition `name`. Raises BtfError."""
        if type_id := self._find(name, _TYPEDEF):
            return type_id
        raise BtfError(f"This kernel has no type {name}.")

    def function(self, name: str) -> int:
        """Id of the function `name`. Raises BtfError."""
        if type_id := self._find(name, _FUNC):
            return type_id
        raise BtfError(f"This kernel has no function {name}.")

    def member(self, struct_id: int, name: str) -> Member | None:
        """The field `name`, also inside the structure's unnamed parts."""
        position = self._at[struct_id]
        info = self._words[position + 1]
        bitfields = info >> 31
        for one in range(position + 3, position + 3 + 3 * (info & 0xFFFF), 3):
            name_off, type_id, bits = self._words[one : one + 3]
            offset = (bits & 0xFFFFFF if bitfields else bits) // 8
            if name_off == 0:
                inner_id = self.strip(type_id)
                inner = (
                    self.member(inner_id, name)
                    if self._kind(inner_id) in (_STRUCT, _UNION)
                    else None
                )
                if inner:
                    return Member(offset + inner.offset, inner.type_id)
            elif self._name(name_off) == name.encode():
                return Member(offset, type_id)
        return None

    def strip(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers."""
        while type_id and self._kind(type_id) in _MODIFIERS:
            type_id = self._words[self._at[type_id] + 2]
        return type_id

    def offset(self, struct_name: str, *path: str) -> int:
        """Byte offset of `struct_name`'s field, each further name one structure deeper.

        Raises BtfError where the kernel has no such structure or field.
        """
        struct_id = self.struct(struct_name)
        total = 0
        for name in path:
            member = self.member(struct_id, name)
            if member is None:
                raise BtfError(f"This kernel's struct {struct_name} has no {'.'.join(path)}.")
            total += member.offset
            struct_id = self.strip(member.type_id)
        return total

    def size(self, struct_name: str) -> int:
        """Bytes that `struct_name` takes. Raises BtfError where the kernel has no such one."""
        return int(self._words[self._at[self.struct(struct_name)] + 2])

    def offset_of_first(self, struct_name: str, *names: str) -> int:
        """Byte offset of the first of these fields that there is. Raises BtfError."""
        struct_id = self.struct(struct_name)
        for name in names:
            if member := self.member(struct_id, name):
                return member.offset
        raise BtfError(f"This kernel's struct {struct_name} has no {' or '.join(names)}.")

    def enum_value(self, name: str, constant: str) -> int | None:
        """The value of `constant` in the enumeration `name`, None where either is absent."""
        type_id = self._find(name, _ENUM)
        if not type_id:
            return None
        position = self._at[type_id]
        for one in range(position + 3, position + 3 + 2 * (self._words[position + 1] & 0xFFFF), 2):
            if self._name(self._words[one]) == constant.encode():
                return self._words[one + 1]
        return None

    def tracepoint_arguments(self, name: str) -> list[bool] | None:
        """For each argument of the tracepoint whether it is a pointer; None where it is absent.

        The kernel declares `typedef void (*btf_trace_NAME)(void *, …)`; the first is not counted.
        """
        type_id = self._find(f"btf_trace_{name}", _TYPEDEF)
        if not type_id:
            return None
        pointer = self._words[self._at[type_id] + 2]
        prototype = self._words[self._at[pointer] + 2]
        if self._kind(pointer) != _PTR or self._kind(prototype) != _FUNC_PROTO:
            return None
        position = self._at[prototype]
        count = self._words[position + 1] & 0xFFFF
        types = [self._words[position + 3 + 2 * one + 1] for one in range(1, count)]
        return [self._kind(self.strip(one)) == _PTR for one in types]
