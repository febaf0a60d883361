"""Overlap reading, the model and writing in time: threads and bounded queues."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")
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


def abreast(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    name: str,
    begin: Callable[[], None] = lambda: None,
) -> Generator[tuple[T, R], None, None]:
    """Yield each item with its result, in order, computed in ``workers`` threads at once.

    One item more than there are workers is taken ahead. Exceptions are raised at their item.

    Args:
        function: Safe to call from several threads.
        items: Taken in the consumer's thread.
        workers: Threads; with one, the function runs in the consumer's.
        name: Of the threads.
        begin: Called first in each thread.
    """
    if workers == 1:
        for item in items:
            yield item, function(item)
        return
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(workers, name, begin)
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > workers:
                first, result = waiting.popleft()
                yield first, result.result()
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
