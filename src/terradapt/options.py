"""Options: keyword arguments that anyone may have written, checked and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ParamSpec, TypeVar, get_type_hints

from terradapt.documents import validated
from terradapt.errors import ConfigError, one_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def check_keywords(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse the first keyword that is not known.

    Raises:
        ConfigError: It names the nearest that is.
    """
    names = list(known)
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise ConfigError(f"no option '{unknown}'", one_of(unknown, names, "options: "))


def check_fields(options: Any) -> None:
    """Check the fields of a frozen dataclass against their types, for its ``__post_init__``.

    What a type can be made of becomes it: text becomes a path, a list becomes a tuple.

    Raises:
        ConfigError: A value of the wrong kind; names the field.
    """
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(options, name)
        known = validated(kind, value, f"option {name}", ConfigError, "correct its value")
        object.__setattr__(options, name, known)


def chosen(kind: type[T], given: Mapping[str, Any]) -> T:
    """Return a dataclass of options from keywords.

    Raises:
        ConfigError: No such option, or a value of the wrong kind.
    """
    check_keywords(given, (field.name for field in fields(kind)))  # type: ignore[arg-type]
    return kind(**given)


def keywords(options: type | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function refuse an unknown keyword in words, as all mistakes of users are told.

    Args:
        options: The dataclass whose fields the function's ``**options`` are; ``help`` then shows
            them with their defaults.
    """

    def wrap(verb: Callable[P, R]) -> Callable[P, R]:
        own = signature(verb)
        shown = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        shown += [_parameter(field) for field in fields(options)] if options else []
        known = [p.name for p in shown if p.name != "self"]

        @wraps(verb)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            check_keywords(kwargs, known)
            return verb(*args, **kwargs)

        call.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
        return call

    return wrap


def _parameter(field: Field[Any]) -> Parameter:
    made = field.default_factory() if field.default_factory is not MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=made, annotation=field.type)
