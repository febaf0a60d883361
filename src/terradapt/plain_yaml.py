"""YAML of hand-written files, held to a size before anything is built of it."""

from __future__ import annotations

from typing import Any

import yaml

LARGEST_YAML = 1 << 18
"""Letters of the largest YAML text that is read."""
MOST_NODES = 20_000
"""Values in it, those that aliases stand for counted as often as they are named."""


def load_yaml(text: str) -> Any:
    """Return the values of a YAML text; nothing in it is executed.

    Raises:
        YAMLError: It is no YAML, too large, nested too deep, or its aliases make too much of it.
    """
    if len(text) > LARGEST_YAML:
        raise yaml.YAMLError(f"more than {LARGEST_YAML} letters")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"more than {MOST_NODES} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("nested too deep") from error
    except (ValueError, OverflowError) as error:  # dates and numbers that there are not
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node; one that holds itself has no end."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise yaml.YAMLError("a value that holds itself")
        return known[id(node)]
    known[id(node)] = 0
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count(child, known) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_count(k, known) + _count(v, known) for k, v in node.value)
    known[id(node)] = total
    return total
