"""What to do when the engine or pip fails: plain words for what others print. No QGIS in here."""

import re
from typing import Optional, Sequence

from .events import Outcome

ENGINE = "Plugins > terradapt > Engine..."
_VERBS = re.compile(r"No such command '([\w-]+)'")
_OPTION = re.compile(r"No such option:? '?(--[\w-]+)")
_EXTRA = re.compile(r"needs the '([\w-]+)' extra")

# The first that is found in pip's words counts: from the special to the general.
_PIP = (
    (
        r"No module named '?(venv|ensurepip)|ensurepip is not available",
        "this Python cannot make environments",
        "on Debian and Ubuntu: sudo apt install python3-venv; elsewhere install Python from "
        "python.org, then try again",
    ),
    (
        r"requires a different Python|Requires-Python|python_requires",
        "this Python is too old for terradapt",
        "install Python 3.11 or newer (Windows and macOS: from python.org), choose it as Python, "
        "and try again",
    ),
    (
        r"No space left on device|Errno 28|WinError 112|not enough space on the disk",
        "the disk is full",
        "make room (the full engine needs several gigabytes), or choose another folder",
    ),
    (
        r"WinError 206|filename or extension is too long|File name too long|Errno 36",
        "the path is too long for this system",
        "choose a short folder for the engine, such as C:\\terradapt",
    ),
    (
        r"WinError 5\b|WinError 32|being used by another process|Access is denied",
        "a file of the engine is in use or protected",
        "stop running terradapt algorithms, close other QGIS windows, and try again; or choose "
        "another folder",
    ),
    (
        r"Permission denied|Errno 13|Read-only file system|Errno 30",
        "the folder cannot be written",
        "choose a folder of your own for the engine",
    ),
    (
        r"407 Proxy Authentication|ProxyError|Cannot connect to proxy|Tunnel connection failed",
        "the proxy refuses the connection",
        "set address, user and password of the proxy in Settings > Options > Network; or use a "
        "folder of wheels",
    ),
    (
        r"Missing dependencies for SOCKS",
        "pip cannot use a SOCKS proxy",
        "set an HTTP proxy in Settings > Options > Network, or use a folder of wheels",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSL: ",
        "the connection's certificate is not trusted, as where a company reads along",
        "give the company's certificate: set the variable PIP_CERT to its file in Settings > "
        "Options > System > Environment; or use a folder of wheels",
    ),
    (
        r"THESE PACKAGES DO NOT MATCH THE HASHES|hash mismatch",
        "a file arrived damaged",
        "try again; if it stays, something on the way changes downloads: use a folder of wheels",
    ),
    (
        r"No matching distribution found for terradapt|"
        r"Could not find a version that satisfies the requirement terradapt",
        "the index has no terradapt for this Python",
        "until terradapt is published give its wheel file or its folder; else check Python (3.11 "
        "or newer), the index address and the connection",
    ),
    (
        r"No matching distribution found for ([\w.\-\[\]]+)",
        "the package '{0}' is not to be found",
        "add its wheel to the folder of wheels (pip download on a machine with internet, of the "
        "same system and Python), or allow the index",
    ),
    (
        r"getaddrinfo failed|Name or service not known|Temporary failure in name resolution|"
        r"Failed to establish a new connection|Network is unreachable|ConnectTimeoutError|"
        r"Read timed out|nodename nor servname",
        "there is no connection to the index",
        "check the internet connection and the proxy in Settings > Options > Network; without "
        "internet use a folder of wheels",
    ),
    (
        r"is not a valid wheel filename|Invalid wheel filename|is not a supported wheel",
        "this wheel is not for this Python or system, or was renamed",
        "take the wheel as it was made: terradapt-VERSION-py3-none-any.whl",
    ),
    (
        r"does not appear to be a Python project|neither 'setup.py' nor 'pyproject.toml'",
        "the folder holds neither wheels nor the source of terradapt",
        "give the folder with terradapt's wheel, or with its pyproject.toml",
    ),
    (
        r"Microsoft Visual C\+\+|error: command .*(gcc|cl\.exe|clang).* failed|"
        r"Failed building wheel",
        "a package has no ready wheel for this Python, and building it fails",
        "choose a Python for which wheels exist (3.11 to 3.13), and try again",
    ),
    (
        r"MemoryError|Killed",
        "the memory does not suffice",
        "close other programs, or take the edge engine, which is smaller",
    ),
)
_RUNS = (
    (
        r"DLL load failed|WinError 126|WinError 1114|fbgemm\.dll|c10\.dll",
        "a library of the engine does not load",
        "install the Microsoft Visual C++ Redistributable (x64), restart, and try again; else make "
        "the engine anew",
    ),
    (
        r"MemoryError|out of memory|bad_alloc",
        "the memory does not suffice",
        "choose smaller windows or batches",
    ),
    (
        r"being used by another process|WinError 32|WinError 5\b|Permission denied",
        "a file is in use, perhaps shown as a layer",
        "remove the layer from the project, or write to another file",
    ),
)


def of_install(lines: Sequence[str]) -> tuple:
    """Return what is wrong and what to do, from what venv or pip printed."""
    text = "\n".join(lines)
    return _match(_PIP, text) or (
        "pip failed; its last line: " + (_last(lines) or "none"),
        "read pip's lines above; a fresh folder, another Python or the edge engine often help",
    )


def of_run(outcome: Outcome, what: str) -> tuple:
    """Return what is wrong and what to do, after a run of the engine that failed.

    Args:
        outcome: Of the run.
        what: Name of the algorithm.
    """
    text = "\n".join([*outcome.log, outcome.error])
    missing = _VERBS.search(text) or _OPTION.search(text)
    if missing:
        return (
            f"{what} needs a newer terradapt (this one has no '{missing.group(1)}')",
            f"make the engine anew: {ENGINE}",
        )
    extra = _EXTRA.search(text)
    if extra:
        return outcome.error, f"make the full engine: {ENGINE}"
    if outcome.error and outcome.status != 70:
        return outcome.error, outcome.fix
    found = _match(_RUNS, text)
    if found:
        return found
    if outcome.status < 0 or outcome.status in (137, 0xC0000005, 3221225477):
        return (
            f"terradapt was ended by the system ({outcome.status}), most often for want of memory",
            "close other programs; run it again, it goes on where it stopped",
        )
    last = outcome.error or _last(outcome.log) or f"status {outcome.status}"
    return f"terradapt failed: {last}", outcome.fix or f"check the engine: {ENGINE}"


def _match(table: Sequence[tuple], text: str) -> Optional[tuple]:
    for pattern, what, fix in table:
        found = re.search(pattern, text)
        if found:
            return what.format(*found.groups()), fix
    return None


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
