import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.content_disposition import clean_filename, parse_parameters, read_filename
from tests.shared.support import properties


def filename_of(parameters: str) -> str | None:
    return read_filename(parse_parameters("form-data; " + parameters)[1])


@pytest.mark.parametrize(
    ("header", "value", "parameters"),
    [
        ("", "", {}),
        ("Multipart/Form-Data", "multipart/form-data", {}),
        ("form-data;NAME=a; Filename = b.txt ", "form-data", {"name": "a", "filename": "b.txt"}),
        ('form-data; name="a;b=c\\"d"; x=""', "form-data", {"name": 'a;b=c"d', "x": ""}),
        ("form-data; name=a; name=b; flag; =c", "form-data", {"name": "a"}),
        ('form-data; name="not closed', "form-data", {"name": ""}),
    ],
)
def test_parameters_are_parsed(header: str, value: str, parameters: dict[str, str]) -> None:
    assert parse_parameters(header) == (value, parameters)


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        ("name=file", None),
        ('filename="a b.jsonl"', "a b.jsonl"),
        ('filename="大熊猫.jsonl"', "大熊猫.jsonl"),
        ('filename=""', "upload"),
        ("filename*=UTF-8''%E5%A4%A7%E7%86%8A%E7%8C%AB.jsonl", "大熊猫.jsonl"),
        ("filename=plain; filename*=utf-8'en'ex%20tended", "ex tended"),
        ("filename*=ISO-8859-1''%FC", "ü"),
        ("filename=plain; filename*=UTF-8''%FF", "plain"),
        ("filename=plain; filename*=unknown''x", "plain"),
        ("filename*=malformed", "upload"),
        ("filename=\"filename*=UTF-8''x\"", "filename*=UTF-8''x"),
        ("filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ('filename="C:\\fakepath\\x.jsonl"', "x.jsonl"),
        ('filename="C:\\\\fakepath\\\\x.jsonl"', "x.jsonl"),
    ],
)
def test_filename_is_read(parameters: str, filename: str | None) -> None:
    assert filename_of(parameters) == filename


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("/home/panda/x.jsonl", "x.jsonl"),
        ("folder/", "upload"),
        ("..", "upload"),
        (" \x00\x1b\r\n\x7f\x85 ", "upload"),
        ("a\x00b\nc", "abc"),
        ("x" * 300, "x" * 255),
    ],
)
def test_filename_is_cleaned(name: str, cleaned: str) -> None:
    assert clean_filename(name) == cleaned


@properties
@given(st.text(max_size=400))
def test_cleaned_filename_is_safe_and_stays_the_same_when_cleaned_again(name: str) -> None:
    cleaned = clean_filename(name)
    assert 1 <= len(cleaned) <= 255
    assert not set(cleaned) & set("/\\\0\r\n")
    assert clean_filename(cleaned) == cleaned


@properties
@given(st.text(max_size=200))
def test_any_header_is_parsed(header: str) -> None:
    read_filename(parse_parameters(header)[1])
