"""Find the program terradapt, or say how pip makes one in a folder of its own. No QGIS in here."""

import os
import shutil
import sys
from pathlib import Path
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

OLDEST = (3, 11)
NEWEST = (3, 13)  # with wheels of all packages when this was written
EXTRAS = {"edge": "vector", "full": "all"}
"""Kinds of engine: what is installed beside terradapt itself."""
_VERSION = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


class Plan(NamedTuple):
    """What a new engine is made from.

    Attributes:
        folder: Where it is made.
        python: The Python that it is made with.
        kind: Of :data:`EXTRAS`.
        source: A wheel file, a folder of wheels, or terradapt's source; "" is the index.
        index: Address of an index instead of pip's own; "" is pip's own.
        offline: Take nothing from an index: all wheels are in the folder.
    """

    folder: Path
    python: str
    kind: str = "edge"
    source: str = ""
    index: str = ""
    offline: bool = False


def default_folder(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return where the button makes the engine.

    Not in QGIS's profile: that may travel over a network, and its path is long on Windows.
    """
    if platform.startswith("win"):
        base = environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "terradapt" / "engine"


def program_of(folder: Path, name: str = "terradapt", platform: str = sys.platform) -> Path:
    """Return the place of a program in a virtual environment."""
    if platform.startswith("win"):
        return folder / "Scripts" / f"{name}.exe"
    return folder / "bin" / name


def find(setting: str, folder: Path, environ: Mapping[str, str]) -> Optional[str]:
    """Return the program terradapt: of the setting, else the engine's, else of the ``PATH``.

    A setting that leads nowhere is not passed over in silence: it gives None.

    Args:
        setting: The program, or the folder of its environment; "" for none.
        folder: Where the button makes the engine.
        environ: With ``PATH``, and ``TERRADAPT_EXECUTABLE`` above the setting.
    """
    setting = environ.get("TERRADAPT_EXECUTABLE", "") or setting.strip()
    if setting:
        path = Path(setting).expanduser()
        path = program_of(path) if path.is_dir() else path
        return str(path) if path.is_file() else None
    made = program_of(folder)
    if made.is_file():
        return str(made)
    return shutil.which("terradapt", path=environ.get("PATH"))


def pythons(environ: Mapping[str, str], platform: str = sys.platform) -> List[List[str]]:
    """Return commands that may start a Python for the engine, the best first.

    QGIS's own comes last; an environment made with it still has packages of its own.
    """
    minors = range(NEWEST[1] - 1, OLDEST[1] - 1, -1)
    order = [*minors, NEWEST[1]]
    found: List[List[str]] = []
    if platform.startswith("win"):
        launcher = shutil.which("py", path=environ.get("PATH"))
        found += [[launcher, f"-3.{minor}"] for minor in order if launcher]
        base = Path(environ.get("LOCALAPPDATA", "")) / "Programs" / "Python"
        found += [[str(base / f"Python3{minor}" / "python.exe")] for minor in order]
        own = [Path(sys.exec_prefix) / "python.exe", Path(sys.exec_prefix) / "python3.exe"]
    else:
        names = [*(f"python3.{minor}" for minor in order), "python3"]
        if platform == "darwin":
            for minor in order:
                base = f"/Library/Frameworks/Python.framework/Versions/3.{minor}/bin/python3"
                found += [[base]]
            found += [
                [f"{brew}/bin/{n}"] for brew in ("/opt/homebrew", "/usr/local") for n in names
            ]
        found += [[shutil.which(n, path=environ.get("PATH")) or ""] for n in names]
        own = [Path(sys.exec_prefix) / "bin" / "python3"]
    found += [[str(path)] for path in own]
    known: Dict[str, List[str]] = {" ".join(c): c for c in found if c[0] and Path(c[0]).is_file()}
    return list(known.values())


def usable(command: Sequence[str], ask: Callable[[Sequence[str]], str]) -> bool:
    """Tell whether a Python is new enough and makes environments.

    Args:
        command: That starts it.
        ask: Runs a command and returns what it prints.
    """
    try:
        parts = ask([*command, "-c", _VERSION]).split()[-1].split(".")
        return (int(parts[0]), int(parts[1])) >= OLDEST
    except (OSError, ValueError, IndexError):
        return False


def commands(plan: Plan, python: Sequence[str]) -> List[List[str]]:
    """Return the commands that make an engine, in order: environment, pip, packages, proof.

    Args:
        plan: What is wished.
        python: The command that starts its Python.
    """
    inside = str(program_of(plan.folder, "python"))
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    name, links = requirement(plan)
    where = [*(["--find-links", links] if links else [])]
    if plan.offline:
        where.append("--no-index")
    elif plan.index:
        where += ["--index-url", plan.index]
    install = [inside, "-m", "pip", "install", "--upgrade", *options, *where]
    found = [
        [*python, "-m", "venv", "--clear", str(plan.folder)],
        [*install, name],
        [str(program_of(plan.folder)), "--version"],
    ]
    if plan.kind == "full":
        found.append([inside, "-c", "import torch, timm, onnx; print('torch', torch.__version__)"])
    return found


def requirement(plan: Plan) -> tuple:
    """Return what pip is asked for, and the folder of wheels that it looks into, or ""."""
    extra = EXTRAS[plan.kind]
    if not plan.source:
        return f"terradapt[{extra}]", ""
    source = Path(plan.source).expanduser().absolute()
    if source.is_dir() and not (source / "pyproject.toml").is_file():
        return f"terradapt[{extra}]", str(source)
    links = str(source.parent) if source.is_file() else ""
    return f"{source}[{extra}]", links


def proxy_environment(values: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that tell pip of QGIS's proxy: in a command others could read it.

    Args:
        values: ``enabled``, ``type``, ``host``, ``port``, ``user``, ``password`` and ``excluded``
            (hosts or addresses with commas), as QGIS has them.
    """
    from urllib.parse import quote, urlsplit

    if values.get("enabled") != "true" or not values.get("host"):
        return {}
    if values.get("type", "DefaultProxy") in ("DefaultProxy", "NoProxy"):
        return {}  # the system's, which pip asks itself
    scheme = "socks5" if values["type"] == "Socks5Proxy" else "http"
    user = quote(values.get("user", ""), safe="")
    secret = f":{quote(values['password'], safe='')}" if values.get("password") else ""
    port = f":{values['port']}" if values.get("port") else ""
    address = f"{scheme}://{user}{secret}{'@' if user else ''}{values['host']}{port}"
    excluded = [part.strip() for part in values.get("excluded", "").split(",") if part.strip()]
    hosts = [urlsplit(part).hostname or part if "://" in part else part for part in excluded]
    names = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "NO_PROXY": ",".join(hosts)}
    return {**names, **{name.lower(): value for name, value in names.items()}}


def is_own(folder: Path) -> bool:
    """Tell whether a folder may be made anew: it is empty, missing, or an environment already."""
    if not folder.exists():
        return True
    return folder.is_dir() and ((folder / "pyvenv.cfg").is_file() or not os.listdir(str(folder)))
