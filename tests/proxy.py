"""A small proxy before a server, which does to one commit what networks do to any."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

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

    Args:
        server: the server's socket.
        mark: what a question that asks for a commit has in it.

    Attributes:
        port: where it listens.
        fault: what happens to the next commit; None once it has.
    """

    def __init__(self, server: Path, mark: bytes) -> None:
        self._server = str(server)
        self._mark = mark
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.fault: Fault | None = None
        self._late: list[_Connection] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Let nobody connect any more, and forget what is late."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        while self._late:
            self._late.pop().end()

    def deliver(self) -> int:
        """Bring the server the questions that are late; when this returns, it has looked at them."""
        late, self._late = self._late, []
        for connection in late:
            connection.ask_late()
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
                    server.close()
                    continue
                _Connection(self, client, server)

    def take(self, question: bytes) -> Fault | None:
        """The fault that this question meets."""
        fault = self.fault if self._mark in question else None
        if fault:
            self.fault = None
        return fault

    def hold(self, connection: _Connection) -> None:
        """Keep a connection whose question is late until `deliver`."""
        self._late.append(connection)


class _Connection:
    """One connection to the proxy, and the one from it to the server: they end together."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._fault: Fault | None = None
        self._late = b""
        self._answering = threading.Thread(target=self._answer, daemon=True)
        self._answering.start()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._client, self._server:
            with suppress(OSError):
                self._ask()
            if self._late:
                self._shut(self._client)
            else:
                self.end()
            self._answering.join()

    def _ask(self) -> None:
        while question := self._client.recv(1 << 20):
            self._fault = fault = self._proxy.take(question)
            if fault == "question late":
                self._late = question
                self._proxy.hold(self)
                return
            if fault == "question cut":
                self._server.sendall(question[: len(question) // 2])
            elif fault != "question lost":
                self._server.sendall(question)
            if fault in {"question lost", "question cut", "connection lost behind the question"}:
                return

    def ask_late(self) -> None:
        """Bring the server the question that is late, and wait until it has answered; it may have hung up before."""
        with suppress(OSError):
            self._server.sendall(self._late)
        self._answering.join()

    def _answer(self) -> None:
        with suppress(OSError):
            while answer := self._server.recv(1 << 20):
                fault, self._fault = self._fault, None
                if self._late or fault == "answer lost":
                    break
                if fault == "answer late":
                    time.sleep(LATE_S)
                self._client.sendall(answer[: len(answer) // 2] if fault == "answer cut" else answer)
                if fault == "answer cut":
                    break
                if fault == "answer twice":
                    self._client.sendall(answer)
        self.end()

    def end(self) -> None:
        """Break both connections off."""
        self._shut(self._client)
        self._shut(self._server)

    def _shut(self, end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
