"""What an object shows: printed, copied and pickled, and in everything that hangs on it."""

from __future__ import annotations

import copy
import json
import os
import pickle
import pprint
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, astuple
from functools import partial
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    TracebackType,
    WrapperDescriptorType,
)
from typing import Any

from secretsource import Token

__all__ = ["FORMS", "shown_by"]

Shown = Iterator[tuple[str, str | bytes]]

_AT_MOST = 50_000
_PRINTED: dict[str, Callable[[Any], Any]] = {"repr": repr, "str": str}
# Functions keep what they know in closures; frames and their local variables are looked into where they are met in a
# traceback. None of the others has attributes of its own that would tell anything.
_OPAQUE = (
    type, ModuleType, FunctionType, BuiltinFunctionType, MethodWrapperType, WrapperDescriptorType, CodeType, FrameType,
    GeneratorType, GetSetDescriptorType, MemberDescriptorType, TracebackType, threading.Thread, property, int, float,
    complex, type(None), range,
)  # fmt: skip
# What a Token is for.
_DOORS = {"authorization", "access_token"}
# Made to hold the keys of AWS, which they do in attributes: searched where somebody prints them, and not here.
_KEEP_KEYS = ("boto3", "botocore")
# The other end, which has to know every secret.
_OF_THE_TEST = ("tests", "secretsource.testing", "_pytest", "pytest")


def _default(convert: Callable[[Any], Any]) -> Callable[[Any], str]:
    return lambda one: json.dumps(one, default=convert, skipkeys=True)


FORMS: dict[str, Callable[[Any], Any]] = {
    "repr": repr,
    "str": str,
    "format": format,
    "format with a width": lambda one: f"{one:>200}",
    "percent": lambda one: "%s %r" % (one, one),  # noqa: UP031
    "pprint": pprint.pformat,
    "json of vars": _default(vars),
    "json of str": _default(str),
    "vars": vars,
    "asdict": asdict,
    "astuple": astuple,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": partial(pickle.dumps, protocol=protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def shown_by(root: object, name: str, *, frames: bool = True) -> Shown:
    """Every text on the way from an object, with its place; a place holds no values.

    `frames`: also what hangs on the local variables of an exception's traceback.
    """
    seen: dict[int, object] = {}
    waiting: deque[tuple[str, object, bool]] = deque([(name, root, True)])
    while waiting:
        where, one, thorough = waiting.popleft()
        while isinstance(one, MethodType):
            one = one.__self__
        if isinstance(one, (str, bytes, bytearray)):
            yield where, bytes(one) if isinstance(one, bytearray) else one
            continue
        if id(one) in seen or isinstance(one, _OPAQUE) or one is os.environ or _keeps_keys(one):
            continue
        seen[id(one)] = one  # kept, so that no other object gets its number
        assert len(seen) < _AT_MOST, f"{name} has no end"
        for form, made in _forms_of(one, all_of_them=thorough and (one is root or isinstance(one, BaseException))):
            if isinstance(made, (str, bytes)):
                yield f"{where}, as {form}", made
            elif made is not one:  # a copy, which is not copied once more
                waiting.append((f"{where}, as {form}", made, False))
        waiting.extend((f"{where}{part}", inner, thorough) for part, inner in _parts_of(one, frames))


def _forms_of(one: object, *, all_of_them: bool) -> Iterator[tuple[str, Any]]:
    for form, make in (FORMS if all_of_them else _PRINTED).items():
        try:
            made = make(one)
        except Exception as error:  # refused, which is well; what it says counts
            yield f"{form}, refused", f"{error} {error!r}"
        else:
            yield form, made


def _parts_of(one: object, frames: bool) -> Iterable[tuple[str, Any]]:
    if _is_from(one, *_OF_THE_TEST) and not isinstance(one, BaseException):
        return []
    parts = list(_attributes(one))
    if isinstance(one, Mapping):
        items = _listed(one.items)
        parts += [(f"[{n}]", value) for n, (_, value) in enumerate(items)]
        parts += [(f" key {n}", key) for n, (key, _) in enumerate(items)]
    elif isinstance(one, (list, tuple, set, frozenset, deque)):
        parts += [(f"[{n}]", inner) for n, inner in enumerate(_listed(lambda: one))]
    if isinstance(one, partial):
        parts += [(" of", one.func), ("'s arguments", (one.args, one.keywords))]
    if frames and isinstance(one, BaseException):
        parts += _frames_of(one)
    return parts


def _attributes(one: object) -> Iterator[tuple[str, Any]]:
    """Those of ours and of exceptions as dir() has them; of others what they hold, without running their code."""
    names = {*_names_held(one)}
    if _is_ours(one):
        names |= {name for name in dir(one) if not name.startswith("__")}
    if isinstance(one, BaseException):
        names |= {"__cause__", "__context__", "__notes__"}
    if isinstance(one, Token):
        names -= _DOORS
    for name in sorted(names):
        try:
            yield f".{name}", getattr(one, name)
        except Exception:  # not set, or not to be had
            continue


def _names_held(one: object) -> Iterator[str]:
    yield from (name for name in getattr(one, "__dict__", {}) if isinstance(name, str))
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _frames_of(error: BaseException) -> Iterator[tuple[str, Any]]:
    kept = [one for one in vars(error).values() if isinstance(one, (FrameType, TracebackType))]
    for trace in (error.__traceback__, *kept):
        while trace is not None:
            frame = trace if isinstance(trace, FrameType) else trace.tb_frame
            for name, value in dict(frame.f_locals).items():
                yield f", local {name} of {frame.f_code.co_qualname}", value
            trace = None if isinstance(trace, FrameType) else trace.tb_next


def _listed(items: Callable[[], Iterable[Any]]) -> list[Any]:
    try:
        return list(items())
    except RuntimeError:  # another thread changes it just now
        return list(items())


def _keeps_keys(one: object) -> bool:
    kinds = type(one).__mro__
    return not isinstance(one, BaseException) and any(kind.__module__.split(".")[0] in _KEEP_KEYS for kind in kinds)


def _is_ours(one: object) -> bool:
    return isinstance(one, BaseException) or _is_from(one, "secretsource")


def _is_from(one: object, *modules: str) -> bool:
    of = type(one).__module__ or ""
    return any(of == module or of.startswith(f"{module}.") for module in modules)
