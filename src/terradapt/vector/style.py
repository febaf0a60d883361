"""How QGIS draws what is written here: QML, for GeoPackages and as files beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import quoteattr

from terradapt.classes import CUSTOMARY, Colour, default_colours

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_EDGE = "50,50,50,120"


def class_style(field: str, classes: Sequence[tuple[int, str, Colour | None]]) -> str:
    """Return the style of polygons coloured by class.

    Args:
        field: Column of the ids.
        classes: Id, name and RGB of each; a colour is made where there is none.
    """
    made = default_colours([name for _, name, _ in classes])
    categories, symbols = [], []
    for i, (value, name, colour) in enumerate(classes):
        categories.append(
            f'      <category render="true" symbol="{i}" value="{value}" type="long" '
            f"label={quoteattr(name)}/>"
        )
        symbols.append(_filled(str(i), _rgba(colour or made[i]), _EDGE, "0.1"))
    return _categorized(field, categories, symbols, 2)


def state_style(field: str, states: Mapping[str, Colour], *, lines: bool = False) -> str:
    """Return the style of polygons or lines coloured by a word.

    Args:
        field: Column of the words.
        states: RGB of each word.
        lines: They are lines.
    """
    categories, symbols = [], []
    for i, (state, colour) in enumerate(states.items()):
        categories.append(
            f'      <category render="true" symbol="{i}" value={quoteattr(state)} type="string" '
            f"label={quoteattr(state)}/>"
        )
        if lines:
            symbols.append(_symbol(str(i), "line", "SimpleLine", _stroke(colour, "1")))
            continue
        glass = ",".join(map(str, (*colour, 110)))
        symbols.append(_filled(str(i), glass, _rgba(colour), "0.5"))
    return _categorized(field, categories, symbols, 1 if lines else 2)


def _filled(name: str, colour: str, edge: str, width: str) -> str:
    """A polygon's symbol; the edge's width in mm."""
    properties = {
        "color": colour,
        "outline_color": edge,
        "outline_style": "solid",
        "outline_width": width,
        "outline_width_unit": "MM",
        "style": "solid",
    }
    return _symbol(name, "fill", "SimpleFill", properties)


def _categorized(field: str, categories: list[str], symbols: list[str], geometry: int) -> str:
    return _style(
        f'  <renderer-v2 type="categorizedSymbol" attr={quoteattr(field)} symbollevels="0">\n'
        "    <categories>\n" + "\n".join(categories) + "\n    </categories>\n",
        symbols,
        geometry,
    )


def edge_style(colour: Colour = CUSTOMARY["road"]) -> str:
    """Return the style of a network's edges."""
    return _style(
        '  <renderer-v2 type="singleSymbol" symbollevels="0">\n',
        [_symbol("0", "line", "SimpleLine", _stroke(colour, "0.7"))],
        1,
    )


def node_style() -> str:
    """Return the style of a network's nodes."""
    properties = {
        "name": "circle",
        "color": "255,255,255,255",
        "outline_color": "60,60,60,255",
        "outline_width": "0.2",
        "size": "1.4",
        "size_unit": "MM",
    }
    return _style(
        '  <renderer-v2 type="singleSymbol" symbollevels="0">\n',
        [_symbol("0", "marker", "SimpleMarker", properties)],
        0,
    )


def _stroke(colour: Colour, width: str) -> dict[str, str]:
    """Return the properties of a line of a width, mm."""
    return {
        "capstyle": "round",
        "joinstyle": "round",
        "line_color": _rgba(colour),
        "line_style": "solid",
        "line_width": width,
        "line_width_unit": "MM",
    }


def _rgba(colour: Colour) -> str:
    return ",".join(map(str, (*colour, 255)))


def _symbol(name: str, kind: str, drawn: str, properties: dict[str, str]) -> str:
    options = "\n".join(
        f'            <Option name="{key}" type="QString" value="{value}"/>'
        for key, value in properties.items()
    )
    return (
        f'      <symbol name="{name}" type="{kind}" alpha="1" clip_to_extent="1" force_rhr="0">\n'
        f'        <layer class="{drawn}" enabled="1" locked="0" pass="0">\n'
        f'          <Option type="Map">\n{options}\n          </Option>\n'
        "        </layer>\n      </symbol>"
    )


def _style(renderer: str, symbols: Sequence[str], geometry: int) -> str:
    """Wrap a renderer; geometries are 0 points, 1 lines, 2 polygons."""
    return (
        f'{_HEAD}<qgis version="3.22.0" styleCategories="Symbology">\n{renderer}'
        "    <symbols>\n" + "\n".join(symbols) + "\n    </symbols>\n  </renderer-v2>\n"
        f"  <layerGeometryType>{geometry}</layerGeometryType>\n</qgis>\n"
    )
