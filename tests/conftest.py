"""Shared fixtures: the command line in process, and the folder of real data."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network, in this process or another
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir()) / "terradapt-has-no-hub")

from terradapt import cli

settings.register_profile("terradapt", deadline=None)  # a busy machine is no failure
settings.load_profile("terradapt")


@dataclass(frozen=True)
class Outcome:
    """What one call of the command line did."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith(("error:", "fix:"))]

    def is_user_error(self, *named: str) -> bool:
        """One ``error:`` and one ``fix:`` line, status 2, no traceback, everything named."""
        kinds = [line.split(":")[0] for line in self.errors]
        assert self.status == 2, (self.status, self.err)
        assert kinds == ["error", "fix"], self.err
        assert "Traceback" not in self.err
        for text in named:
            assert text in self.errors[0], self.errors
        return True


Call = Callable[..., Outcome]


@pytest.fixture
def terradapt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run ``terradapt ARGS...`` in this process."""

    def call(*args: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["terradapt", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        code = stop.value.code
        return Outcome(code if isinstance(code, int) else int(code is not None), out, err)

    return call


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real scenes, from TERRADAPT_DATA."""
    folder = os.environ.get("TERRADAPT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: set TERRADAPT_DATA to their folder")
    return Path(folder).resolve()
