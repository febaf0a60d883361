"""The border where YAML, JSON and logs are read: whatever is in them is told in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from terradapt.documents import Name, parse_pairs, parse_yaml, read_log, validated
from terradapt.errors import ConfigError, DataError, TerradaptError, refusing
from terradapt.files import check_name, read_json, read_text

FIX = "mend it"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [1, 2", "line 1"),
        ("a: 1\nb: @x", "line 2"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("[" * 100_000, "nested too deep"),
        ("!!python/object/apply:os.system [ls]", "line 1"),
        ("a: \x00", "no valid YAML"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_place(text: str, named: str) -> None:
    with pytest.raises(DataError, match=r"f\.yaml: no valid YAML") as caught:
        parse_yaml(text, "f.yaml", DataError, FIX)
    assert named in caught.value.message
    assert caught.value.fix == FIX


@given(st.text())
def test_any_text_is_yaml_or_an_error_in_words(text: str) -> None:
    try:
        parse_yaml(text, "f", DataError, FIX)
    except DataError as error:
        assert error.message.startswith("f: no valid YAML")


@given(st.binary(max_size=64))
def test_any_bytes_are_json_or_an_error_in_words(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    try:
        assert isinstance(read_json(path), dict)
    except DataError as error:
        assert str(path) in error.message


def test_pairs_are_yaml_by_key() -> None:
    assert parse_pairs(["a.b=[1, 2]", "c=", "d=x=y"], "a=1") == {
        "a.b": [1, 2],
        "c": None,
        "d": "x=y",
    }
    for pair in ("a=[1,2", "a=@x", "a", "=1"):
        with pytest.raises(ConfigError, match=f"'{pair}'".replace("[", r"\[")):
            parse_pairs([pair], "a=1")


def test_a_value_that_does_not_fit_is_named() -> None:
    assert validated(dict[str, int], {"a": 1}, "f", DataError, FIX) == {"a": 1}
    with pytest.raises(DataError, match=r"f: does not fit \(a: Input should be a valid integer"):
        validated(dict[str, int], {"a": "x"}, "f", DataError, FIX)


def test_names_are_texts_and_whole_numbers() -> None:
    names = TypeAdapter(list[Name])
    assert names.validate_python(["a", 7]) == ["a", "7"]
    for odd in (True, 1.5, None, ["a"]):
        with pytest.raises(ValueError, match="in quotes"):
            names.validate_python([odd])


def test_other_encodings_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("a: 1\nname: ä".encode("latin1"))
    with pytest.raises(DataError, match=r"is no UTF-8 text \(byte 0xe4 in line 2") as caught:
        read_text(path)
    assert "iconv" in caught.value.fix
    path.write_bytes(b"\xef\xbb\xbfa")
    assert read_text(path) == "a"
    with pytest.raises(DataError, match="larger than 2 B"):
        read_text(path, largest=2)
    with pytest.raises(DataError, match="is no file"):
        read_text(tmp_path)


def test_a_log_is_read_up_to_a_line_that_is_none(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_log(log) == []
    good = '{"event": "step", "step": 1, "loss": 0.5}\n'
    first = [{"event": "step", "step": 1, "loss": 0.5}]
    for bad in ('{"ev', '{"event": "step", "step": "a"}', '{"step": 2}', '{"event": "v", "x": []}'):
        log.write_text(f"{good}{bad}\n{good}")
        assert read_log(log) == first


def test_only_names_that_are_text_pass() -> None:
    check_name("Köln.tif")
    with pytest.raises(DataError, match=r"K\\xf6ln.tif: its name is no UTF-8"):
        check_name("K\udcf6ln.tif")


def test_a_lack_of_memory_and_own_words_pass_the_border() -> None:
    with pytest.raises(MemoryError), refusing("f", DataError, FIX):
        raise MemoryError
    with pytest.raises(ConfigError, match="f: own"), refusing("f", DataError, FIX):
        raise ConfigError("f: own", "words")
    with pytest.raises(DataError, match="f: own") as named, refusing("f", DataError, FIX):
        raise ConfigError("own", "words")
    assert named.value.fix == "words"
    with (
        pytest.raises(TerradaptError, match=r"f: cannot be read \(no 'a'\)"),
        refusing("f", DataError, FIX),
    ):
        raise KeyError("a")
