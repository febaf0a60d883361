"""Overlap reading, the model and writing in time: threads and bounded queues."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], depth: int, name: str) -> Generator[T, None, None]:
    """Run an iterable in a thread, at most ``depth`` items ahead of the consumer.

    Its exceptions are raised at the consumer; closing the generator ends the thread.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
        close = getattr(items, "close", None)
        if close is not None:
            close()


class Behind(Generic[T]):
    """Hand items to a function that runs in a thread, at most ``depth`` of them behind.

    An exception of the function is raised at the next :meth:`put` or at :meth:`finish`.
    """

    def __init__(self, function: Callable[[T], None], depth: int, name: str) -> None:
        self._function = function
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item; waits while the queue is full."""
        self._raise()
        self._waiting.put(item)

    def finish(self) -> None:
        """Wait until all is done."""
        self.close()
        self._raise()

    def close(self) -> None:
        """Let the thread end after what is queued."""
        if self._thread.is_alive():
            self._waiting.put(_END)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._waiting.get()) is not _END:
            if self._error is not None:
                continue
            try:
                self._function(item)
            except BaseException as error:
                self._error = error
