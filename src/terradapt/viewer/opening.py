"""Opening: the models of a session, in a thread of its own, while the page shows the scene.

Loading torch takes seconds of a core: it begins when a page has drawn the scene, or needs a model,
and in any case soon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from terradapt.errors import TerradaptError
from terradapt.files import Closing
from terradapt.viewer.models import Work
from terradapt.viewer.session import Session

_PATIENCE = 4.0  # s that a page has to draw the scene


class Opening(Closing):
    """See the module.

    Args:
        session: Its model was announced; one that is open is left alone.
        work: Opens them.

    Attributes:
        error: Why a model cannot be opened; None as long as nothing is known of that.
    """

    def __init__(self, session: Session, work: Work) -> None:
        self._session, self._work = session, work
        self._failed: Callable[[], None] = lambda: None
        self._ends = False
        self._thread = threading.Thread(target=self._open, name="open", daemon=True)
        self.error: BaseException | None = None

    def start(self, failed: Callable[[], None]) -> None:
        """Begin.

        Args:
            failed: Called in the thread when a model cannot be opened.
        """
        self._failed = failed
        if not self._session.opened.is_set():
            self._thread.start()

    def close(self) -> None:
        """Open nothing any more; return when nothing is being opened."""
        self._ends = True
        self._session.wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def _open(self) -> None:
        self._session.wanted.wait(_PATIENCE)
        if self._ends:
            return
        try:
            self._work.open_models()
        except BaseException as error:  # handed to the thread that ends the session with it
            self.error = error
            if isinstance(error, TerradaptError):
                self._session.events.publish("problem", error=error.message, fix=error.fix)
        finally:
            self._session.opened.set()
        self._session.events.publish("session")
        if self.error is not None:
            self._failed()
