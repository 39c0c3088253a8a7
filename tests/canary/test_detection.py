"""The suite is tested itself: a leak of each kind is planted and has to be found, so each detector is needed."""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
import sentry_sdk

from secretsource import ConfigurationError, SecretSourceError
from secretsource.events import CredentialsRecovered
from secretsource.testing import LoopbackServer
from secretsource.testing.loopback import Answer

from . import objects
from . import watch as watch_module
from .canaries import ENCODINGS, SPECIAL, TOKEN, Canaries, Found
from .objects import FORMS, shown_by
from .reporters import REPORTERS, Sentry
from .watch import Leaked, Watch

Watching = Callable[[], AbstractContextManager[Watch]]

SECRET = "Ab\"+/ %é~?>~?>not-a-real-secret~?>~?>ü\\&<'Zz9"
SLEEPER = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]

# --- how it is written -----------------------------------------------------------------------------------------------

UTF_8 = SECRET.encode()
WRITTEN: dict[str, str] = {
    "plain": SECRET,
    "lower case": SECRET.lower(),
    "upper case": SECRET.upper(),
    "JSON": json.dumps({"a": SECRET}),
    "JSON in UTF-8": json.dumps({"a": SECRET}, ensure_ascii=False),
    "Latin-1": SECRET.encode("latin-1").decode("utf-8", "surrogateescape"),
    "repr": repr({"a": SECRET}),
    "repr of bytes": repr([UTF_8]),
    "HTML": html.escape(SECRET),
    "URL": quote(SECRET, safe=""),
    "URL with slashes": quote(SECRET),
    "URL in lower case": "Ab%22%2b%2f%20%25%c3%a9~%3f%3e~%3f%3enot-a-real-secret~%3f%3e~%3f%3e%c3%bc%5c%26%3c%27Zz9",
    "form": quote_plus(SECRET),
    "hex": UTF_8.hex(),
    "hex in upper case": UTF_8.hex().upper(),
    **{f"base64 at offset {n}": base64.b64encode(b"id:"[:n] + UTF_8 + b"behind").decode() for n in range(3)},
    **{f"base64url at offset {n}": base64.urlsafe_b64encode(b"id:"[:n] + UTF_8 + b"...").decode() for n in range(3)},
}


def test_each_encoding_has_its_plant() -> None:
    assert set(WRITTEN) == set(ENCODINGS)


@pytest.fixture
def canaries() -> Canaries:
    canaries = Canaries()
    canaries.add("planted", SECRET)
    canaries.new("another")
    return canaries


@pytest.mark.parametrize("encoding", WRITTEN)
@pytest.mark.parametrize("around", ["{}", "before{}behind", '"{}"\n'])
def test_a_canary_is_found_in_each_encoding(canaries: Canaries, encoding: str, around: str) -> None:
    text = around.format(WRITTEN[encoding])
    assert canaries.found_in(text) == Found("planted", encoding)
    data = text.encode("utf-8", "surrogateescape")
    assert canaries.found_in(data) == Found("planted", encoding)
    assert canaries.found_in(bytearray(b"\xff\x00" + data + b"\xff")) == Found("planted", encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("half", "name"), [(slice(None, len(SECRET) // 2), "first"), (slice(len(SECRET) // 2, None), "last")]
)
def test_a_half_is_found_in_each_encoding(canaries: Canaries, encoding: str, half: slice, name: str) -> None:
    found = canaries.found_in(f"<{ENCODINGS[encoding](SECRET[half])}>")
    assert found is not None
    assert found.canary == "planted"
    assert found.encoding.endswith(f"its {name} half")


def test_a_short_secret_has_no_halves() -> None:
    canaries = Canaries()
    canaries.add("short", "elevenchars")
    assert canaries.found_in("eleven") is None
    assert canaries.found_in("elevenchars") == Found("short", "plain")


@pytest.mark.parametrize("shape", [SPECIAL, TOKEN])
def test_what_is_no_canary_is_not_found(shape: str) -> None:
    canaries, others = Canaries(), Canaries()
    canaries.new("one", shape)
    other = others.new("other", shape)
    assert [name for name, encode in ENCODINGS.items() if canaries.found_in(encode(other))] == []


# --- where it is -----------------------------------------------------------------------------------------------------


def in_an_argument(watch: Watch, text: str) -> None:
    logging.getLogger("urllib3.planted").log(1, "an answer: %s", {"body": text})


def in_an_attribute(watch: Watch, text: str) -> None:
    logging.getLogger("planted").info("an answer", extra={"response": [text]})


def in_pieces(watch: Watch, text: str) -> None:
    logging.getLogger("planted").info(
        "%s%s%s%s", *(text[n * len(text) // 4 : (n + 1) * len(text) // 4] for n in range(4))
    )


def in_a_logged_exception(watch: Watch, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("planted").exception("a failure")


def in_a_logged_local(watch: Watch, text: str) -> None:
    def fail(answer: str) -> None:
        raise ValueError("nothing to see")

    try:
        fail(text)
    except ValueError as error:
        logging.getLogger("planted").debug("a failure", exc_info=error)


def in_a_lone_logger(watch: Watch, text: str) -> None:
    LONE.debug(text)


LONE = logging.getLogger("planted.lone")
LONE.propagate = False
LONE.setLevel(logging.CRITICAL)


def in_standard_output_of_a_child(watch: Watch, text: str) -> None:
    os.write(1, text.encode())


def in_a_file(watch: Watch, text: str) -> None:
    Path("left").mkdir()
    Path("left", "over.tmp").write_text(text)


def in_the_name_of_a_file(watch: Watch, text: str) -> None:
    Path(quote(text, safe="")).touch()


def in_an_argument_of_a_child(watch: Watch, text: str) -> None:
    subprocess.run([sys.executable, "-c", "", text], check=True)


def in_the_environment_of_a_child(watch: Watch, text: str) -> None:
    subprocess.run([sys.executable, "-c", ""], env={**os.environ, "PLANTED": text}, check=True)


def in_what_proc_tells(watch: Watch, text: str) -> None:
    # Started without subprocess, which is watched already.
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("no /proc here")
    read, write = os.pipe()
    child = os.posix_spawn(sys.executable, [*SLEEPER, text], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, read, 0)])
    watch.processes.look_at(child)
    os.close(read)
    os.close(write)
    os.waitpid(child, 0)


def in_the_environment(watch: Watch, text: str) -> None:
    os.environ["PLANTED"] = text


def in_the_name_of_a_thread(watch: Watch, text: str) -> None:
    threading.Thread(target=threading.Event().wait, args=(5,), name=f"fetch {text}", daemon=True).start()


def in_a_span(watch: Watch, text: str) -> None:
    with watch.spans.tracer.start_as_current_span("a span") as span:
        span.set_attribute("planted", text)


def in_a_header_that_is_traced(watch: Watch, text: str) -> None:
    with LoopbackServer(lambda incoming: Answer()) as server, httpx.Client(trust_env=False) as client:
        client.get(server.origin, headers={"X-Planted": base64.b64encode(text.encode()).decode()})


def in_a_breadcrumb(watch: Watch, text: str) -> None:
    sentry_sdk.add_breadcrumb(message="an answer", data={"body": text})


def in_an_event_of_sentry(watch: Watch, text: str) -> None:
    sentry_sdk.capture_message(text)


PLANTS: list[tuple[str, Callable[[Watch, str], object]]] = [
    ("log", lambda watch, text: logging.getLogger("planted").debug(text)),
    ("log", in_an_argument),
    ("log", in_pieces),
    ("log", in_an_attribute),
    ("log", in_a_logged_exception),
    ("log", in_a_logged_local),
    ("log", in_a_lone_logger),
    ("warning", lambda watch, text: warnings.warn(text, DeprecationWarning, stacklevel=2)),
    ("output", lambda watch, text: print(text)),
    ("output", lambda watch, text: print(text, file=sys.stderr)),
    ("output", in_standard_output_of_a_child),
    ("output", lambda watch, text: watch.write(text)),
    ("file", in_a_file),
    ("file", in_the_name_of_a_file),
    ("process", in_an_argument_of_a_child),
    ("process", in_the_environment_of_a_child),
    ("process", in_what_proc_tells),
    ("environment", in_the_environment),
    ("thread", in_the_name_of_a_thread),
    ("span", in_a_span),
    ("span", in_a_header_that_is_traced),
    ("event", lambda watch, text: watch.events.append(CredentialsRecovered(text))),
    ("Sentry", in_a_breadcrumb),
    ("Sentry", in_an_event_of_sentry),
    ("object", lambda watch, text: watch.look([text])),
    ("object", lambda watch, text: watch.gives(lambda: {"a": text})),
    ("object", lambda watch, text: watch.fails(ValueError, lambda: _raise(ValueError(text)))),
    ("object", lambda watch, text: watch.ends(lambda: _raise(ValueError(text)))),
]


def test_each_place_has_its_plant(watch: Watch) -> None:
    assert {place for place, _ in PLANTS} == {*watch.places, "object", "event", "Sentry", "output"}


@pytest.mark.parametrize(("place", "plant"), PLANTS)
def test_a_leak_is_found_in_each_place(
    watching: Watching, place: str, plant: Callable[[Watch, str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", "")
    with pytest.raises(Leaked) as leak, watching() as watch:
        plant(watch, watch.canary("planted"))
    assert (leak.value.canary, leak.value.place, leak.value.encoding.startswith(("plain", "base64"))) == (
        "planted",
        place,
        True,
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_leak_is_found_in_each_encoding(watching: Watching, encoding: str) -> None:
    with pytest.raises(Leaked), watching() as watch:
        watch.look([ENCODINGS[encoding](watch.canary("planted", SPECIAL))])


def test_a_leak_is_told_by_its_name_and_never_by_its_value(watching: Watching) -> None:
    secret = "not-a-real-secret-of-this-test"
    with pytest.raises(Leaked) as leak, watching() as watch:
        watch.look({watch.canary_of("the secret of the client", secret): [secret]})
    assert str(leak.value).startswith("the canary 'the secret of the client' is in dict")
    assert secret[:12] not in repr(leak.value) + repr(watch) + str(leak.value)


def test_without_a_leak_nothing_is_found(watch: Watch) -> None:
    watch.canary("not planted")
    for _, plant in PLANTS[:6]:
        plant(watch, "harmless")


# --- what hangs on an object -----------------------------------------------------------------------------------------


@dataclass
class Settings:
    secret: str


def planted(name: str, method: Callable[..., object]) -> object:
    """An object that lets its secret out in one way only."""
    return type("Planted", (), {name: method, "__module__": "secretsource.planted"})()


def made_of(text: str) -> Any:
    return planted("__repr__", lambda self: text)


LEAKS: dict[str, Callable[[str], object]] = {
    "repr": made_of,
    "str": lambda text: planted("__str__", lambda self: text),
    "format": lambda text: planted("__format__", lambda self, spec: "" if spec else text),
    "format with a width": lambda text: planted("__format__", lambda self, spec: text if spec else ""),
    "percent": lambda text: planted("__str__", lambda self: text),
    "pprint": made_of,
    "json of vars": Settings,
    "json of str": lambda text: planted("__str__", lambda self: text),
    "vars": Settings,
    "asdict": Settings,
    "astuple": Settings,
    "copy": lambda text: planted("__copy__", lambda self: made_of(text)),
    "deepcopy": lambda text: planted("__deepcopy__", lambda self, memo: made_of(text)),
    **{
        f"pickle {protocol}": lambda text: planted("__reduce_ex__", lambda self, protocol: (str, (text,)))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def test_each_form_has_its_plant() -> None:
    assert set(LEAKS) == set(FORMS)


@pytest.mark.parametrize("form", LEAKS)
def test_each_form_of_an_object_is_searched(form: str, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FORMS", {form: FORMS[form]})
    shown = list(shown_by(LEAKS[form](SECRET), "it"))
    assert [where for where, text in shown if f"as {form}" in where and canaries.found_in(text)]


def test_a_frame_that_an_exception_keeps_is_searched(canaries: Canaries) -> None:
    def frame(secret: str) -> FrameType:
        return sys._getframe()

    error = ValueError()
    error.kept = frame(SECRET)  # type: ignore[attr-defined]
    assert [where for where, text in shown_by(error, "it") if canaries.found_in(text)]


@pytest.mark.parametrize("method", ["__repr__", "__str__"])
def test_what_hangs_on_an_object_is_printed(method: str, canaries: Canaries) -> None:
    holder = Held("nothing")
    other = "__str__" if method == "__repr__" else "__repr__"
    holder.one = type("Planted", (), {method: lambda self: SECRET, other: lambda self: ""})()
    assert any(canaries.found_in(text) for _, text in shown_by([holder], "it"))


def test_what_a_refusal_says_is_searched(canaries: Canaries) -> None:
    def refuse(self: object) -> str:
        raise TypeError(SECRET)

    assert any(canaries.found_in(text) for _, text in shown_by(planted("__str__", refuse), "it"))


def _raise(error: BaseException) -> None:
    raise error


class Held:
    __module__ = "httpx"

    def __init__(self, text: str) -> None:
        self.one = text


class Slotted:
    __slots__ = ("one",)
    __module__ = "httpx"

    def __init__(self, text: str) -> None:
        self.one = text


class Asked:
    __module__ = "secretsource.planted"

    def __init__(self, text: str) -> None:
        self._ask: Callable[[], str] = lambda: text

    @property
    def answer(self) -> str:
        return self._ask()

    def method(self) -> None: ...


def in_a_group(text: str) -> BaseException:
    return ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [KeyError(text)])])


def with_(name: str, value: object) -> BaseException:
    error = ConfigurationError("wrong")
    setattr(error, name, value)
    return error


def with_a_note(text: str) -> BaseException:
    error = ConfigurationError("wrong")
    error.add_note(text)
    return error


def with_a_cause(text: str) -> BaseException:
    found: BaseException = ConfigurationError("not raised")
    try:
        try:
            _raise(ValueError(text))
        except ValueError as error:
            raise ConfigurationError("wrong") from error
    except ConfigurationError as error:
        found = error
    return found


def with_a_local(text: str) -> BaseException:
    def send(body: list[str]) -> None:
        raise ConfigurationError("wrong" if body else "")  # loguru shows what the line names

    try:
        send([text])
    except ConfigurationError as error:
        error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
        return error
    raise AssertionError


HANGING: dict[str, Callable[[str], object]] = {
    "a text": str,
    "bytes": str.encode,
    "a bytearray": lambda text: bytearray(text.encode()),
    "a list": lambda text: [1, [text]],
    "a tuple": lambda text: (text,),
    "a set": lambda text: {text},
    "a value": lambda text: {"a": {"b": text}},
    "a key": lambda text: {(1, text): 1},
    "an attribute": lambda text: [Held(text)],
    "a slot": Slotted,
    "a property": Asked,
    "the owner of a method": lambda text: [Asked(text).method],
    "the arguments of a partial": lambda text: partial(print, text),
    "a keyword of a partial": lambda text: partial(print, end=text),
    "an argument of an exception": ValueError,
    "a cause": lambda text: with_("__cause__", ValueError(text)),
    "a context": lambda text: with_("__context__", ValueError(text)),
    "the cause of a cause": lambda text: with_("__cause__", with_("__cause__", ValueError(text))),
    "a note": with_a_note,
    "an attribute of an exception": lambda text: with_("response", Slotted(text)),
    "a member of a group": in_a_group,
    "the document of a broken JSON": lambda text: json.JSONDecodeError("wrong", text, 0),
    "the object of a Unicode error": lambda text: UnicodeEncodeError("ascii", text, 0, 1, "wrong"),
    "a local variable": with_a_local,
}


@pytest.mark.parametrize("hanging", HANGING)
def test_what_hangs_on_an_object_is_searched(hanging: str, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FORMS", {})
    monkeypatch.setattr(objects, "_PRINTED", {})  # the walk alone
    shown = shown_by(HANGING[hanging](SECRET), "it")
    assert any(canaries.found_in(text) for _, text in shown)


# --- who takes a traceback -------------------------------------------------------------------------------------------


def test_the_reporters_are_there() -> None:
    assert {"the standard library", "logging", "rich"} <= set(REPORTERS)


@pytest.mark.parametrize("reporter", [name for name in REPORTERS if name != "logging"])
def test_each_reporter_shows_local_variables(reporter: str, canaries: Canaries) -> None:
    assert canaries.found_in(REPORTERS[reporter](with_a_local(SECRET)))


@pytest.mark.parametrize("reporter", REPORTERS)
def test_each_reporter_shows_the_text_of_a_cause(reporter: str, canaries: Canaries) -> None:
    assert canaries.found_in(REPORTERS[reporter](with_a_cause(SECRET)))


def test_sentry_shows_local_variables(sentry: Sentry, canaries: Canaries) -> None:
    sentry.begin()
    assert any(canaries.found_in(payload) for _, payload in sentry.report(with_a_local(SECRET)))


@pytest.mark.parametrize("place", ["traceback", "Sentry"])
def test_each_error_goes_to_all_who_report(place: str, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "shown_by", lambda one, name, frames=True: ())
    if place == "Sentry":
        monkeypatch.setattr(watch_module, "REPORTERS", {})
    with pytest.raises(Leaked) as leak, watching() as watch:
        watch.look(with_a_local(watch.canary("planted")))
    assert leak.value.place == place


def test_an_error_on_which_another_hangs_is_no_good_end(watch: Watch) -> None:
    with pytest.raises(AssertionError, match="another exception"):
        watch.fails(SecretSourceError, lambda: _raise(with_("__context__", ValueError(1))))


def test_an_error_of_another_kind_is_no_good_end(watch: Watch) -> None:
    with pytest.raises(AssertionError, match="KeyError instead of ValueError"):
        watch.fails(ValueError, lambda: _raise(KeyError(1)))
    with pytest.raises(AssertionError, match="int instead of ValueError"):
        watch.fails(ValueError, lambda: 5)
