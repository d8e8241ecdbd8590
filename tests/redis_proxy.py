"""A small proxy before a server of Redis, which does to one commit what networks do to any."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from eventlog.storage.redis_scripts import COMMIT

if TYPE_CHECKING:
    from pathlib import Path

Fault = Literal[
    "question lost",
    "question cut",
    "question late",
    "connection lost behind the question",
    "answer lost",
    "answer cut",
    "answer late",
    "answer twice",
]
FAULTS: tuple[Fault, ...] = Fault.__args__
LATE_S = 0.5


class Proxy:
    """Listens on a port of this machine, and passes on what comes to the server's socket and back.

    Attributes:
        fault: what happens to the next commit; None once it has.
    """

    def __init__(self, server: Path) -> None:
        self._server = str(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.fault: Fault | None = None
        self._late: list[tuple[socket.socket, bytes]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, prefix: str = "eventlog", options: str = "") -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0?prefix={prefix}{options}"

    def close(self) -> None:
        self._listener.close()

    def deliver(self) -> int:
        """Bring the server the questions that are late; when this returns, it has looked at them."""
        late, self._late = self._late, []
        for server, question in late:
            with server:
                server.sendall(question)
                server.settimeout(5)
                assert server.recv(1 << 16)
        return len(late)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._server)
                except OSError:  # it is down just now
                    client.close()
                    continue
                _Connection(self, client, server)

    def take(self, question: bytes) -> Fault | None:
        """The fault that this question meets."""
        fault = self.fault if COMMIT.sha in question else None
        if fault:
            self.fault = None
        return fault

    def hold(self, server: socket.socket, question: bytes) -> None:
        """Keep a question and its connection until `deliver`."""
        self._late.append((server, question))


class _Connection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._fault: Fault | None = None
        self._is_held = False
        for work in (self._ask, self._answer):
            threading.Thread(target=work, daemon=True).start()

    def _ask(self) -> None:
        with suppress(OSError):
            while question := self._client.recv(1 << 20):
                self._fault = fault = self._proxy.take(question)
                if fault == "question late":
                    self._is_held = True
                    self._proxy.hold(self._server.dup(), question)
                elif fault == "question cut":
                    self._server.sendall(question[: len(question) // 2])
                elif fault != "question lost":
                    self._server.sendall(question)
                if fault in {"question lost", "question cut", "question late", "connection lost behind the question"}:
                    break
        self._end()

    def _answer(self) -> None:
        with suppress(OSError):
            while answer := self._server.recv(1 << 20):
                if self._is_held:
                    return
                fault, self._fault = self._fault, None
                if fault == "answer lost":
                    break
                if fault == "answer late":
                    time.sleep(LATE_S)
                self._client.sendall(answer[: len(answer) // 2] if fault == "answer cut" else answer)
                if fault == "answer cut":
                    break
                if fault == "answer twice":
                    self._client.sendall(answer)
        self._end()

    def _end(self) -> None:
        ends = [self._client] if self._is_held else [self._client, self._server]
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
