"""Compiled functions that are made on first use, so that importing the package stays fast."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_log = logging.getLogger("mmgraph")


class Compiled:
    """A Numba function, compiled by its first call and cached on disk where a folder is writable.

    Numba caches next to the source, or in the user's cache folder where the installation is
    read-only; where neither can be written, each process compiles anew. The first compilation
    that a process really does (not one read from disk) is announced in the log.

    Args:
        function: the Python function; it starts no threads and holds no GIL.
        purpose: what is compiled, in words, for the log.
    """

    def __init__(self, function: Callable[..., Any], purpose: str) -> None:
        self._function = function
        self._purpose = purpose
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._compiled is None:
            self._compiled = self._compile(arguments)
        return self._compiled(*arguments)

    def _compile(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        import numba
        from numba.core import event

        config: Any = numba.config
        if config.DISABLE_JIT:  # as debuggers and coverage want it
            return self._interpreted
        typeof: Callable[..., Any] = numba.typeof

        signature = tuple(typeof(argument) for argument in arguments)
        _name_by_content(self._function, str(signature))
        with event.install_listener("numba:compile", _announcement(self._purpose)):
            try:
                compiled = numba.njit(nogil=True, cache=True, error_model="numpy")(self._function)
                compiled.compile(signature)
            except (OSError, RuntimeError) as error:  # no folder for the cache, or a full disk
                _log.debug("no compiled code on disk for %s: %s", self._purpose, error)
                compiled = numba.njit(nogil=True, error_model="numpy")(self._function)
                compiled.compile(signature)
        compiled.disable_compile()
        result: Callable[..., Any] = compiled
        return result

    def _interpreted(self, *arguments: Any) -> Any:
        with np.errstate(over="ignore"):  # compiled code wraps around
            return self._function(*arguments)


def callback(
    function: Callable[[int], None],
    purpose: str,
    uses: ModuleType | None = None,
    constants: tuple[Any, ...] = (),
) -> Any:
    """Compile a function of one integer to one of C's, cached as :class:`Compiled` is.

    Args:
        function: the Python function; what it raises is lost.
        purpose: what is compiled, in words, for the log.
        uses: the module of what the function calls and what is compiled into it, if any.
        constants: what else is compiled into it, that its source does not tell.

    Returns:
        A function of :mod:`ctypes`, which releases the GIL when called.
    """
    import numba
    from numba.core import event

    used = "" if uses is None else Path(str(uses.__file__)).read_text(encoding="utf-8")
    _name_by_content(function, used, repr(constants))
    with event.install_listener("numba:run_pass", _announcement(purpose)):
        try:
            compiled = numba.cfunc("void(int64)", cache=True, error_model="numpy")(function)
        except (OSError, RuntimeError) as error:
            _log.debug("no compiled code on disk for %s: %s", purpose, error)
            compiled = numba.cfunc("void(int64)", error_model="numpy")(function)
    return compiled.ctypes


def _name_by_content(function: Callable[..., Any], *content: str) -> None:
    """Name a function for all that decides its machine code, its own source included.

    Numba keeps one index of files on disk for each name, and neither locks it nor checks that a
    file holds what the index says: of two processes that compile different code by one name, one
    may be given the other's. Under a name that can mean one thing only, there is no other.
    """
    source = Path(function.__code__.co_filename)
    own = source.read_text(encoding="utf-8") if source.is_file() else ""
    digest = hashlib.sha256("\0".join((own, *content)).encode()).hexdigest()[:16]
    function.__qualname__ = f"{function.__name__}.{digest}"


_announced: set[str] = set()


def _announcement(purpose: str) -> Any:
    """A Numba event listener that says, once per process, what is being compiled."""
    from numba.core import event

    class Announcement(event.Listener):
        def on_start(self, event: Any) -> None:
            if purpose not in _announced:
                _announced.add(purpose)
                _log.warning("compiling %s, once; this takes some seconds", purpose)

        def on_end(self, event: Any) -> None:
            pass

    return Announcement()
