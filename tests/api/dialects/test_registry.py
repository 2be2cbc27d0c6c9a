import pytest

from api.dialects.registry import FAMILIES, SUPERSET, dialect_by_name, dialect_for_path, family, mounted_families


@pytest.mark.parametrize("each", FAMILIES, ids=lambda each: each.name)
def test_dialects_are_found_by_name(each: object) -> None:
    dialects = family(each.name).dialects  # type: ignore[attr-defined]
    assert [dialect_by_name(dialect.name) for dialect in dialects] == list(dialects)


def test_unknown_dialect_and_family_raise() -> None:
    with pytest.raises(KeyError):
        dialect_by_name("klingon")
    with pytest.raises(KeyError):
        family("klingon")


def test_dialect_names_in_stored_jobs_do_not_change() -> None:
    names = {dialect.name for each in FAMILIES for dialect in each.dialects}
    assert names == {
        *("superset", "jina", "cohere-v1", "cohere-v2", "tei", "vllm", "vllm-score", "infinity", "nebul"),
        *("gpustack", "bifrost", "voyage", "nvidia", "pinecone", "mixedbread", "dashscope", "weaviate"),
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/rerank", "superset"),
        ("/", "superset"),
        ("", "superset"),
        ("/v1/jobs/job-1", "superset"),
        ("/nebul/v1/rerank", "nebul"),
        ("/nebul", "nebul"),
        ("/infinity/nothing/here", "infinity"),
        ("/nebulous/v1/rerank", "superset"),
        ("/cohere/v1/rerank", "cohere-v1"),
        ("/cohere/v2/rerank", "cohere-v2"),
        ("/cohere/rerank", "cohere-v2"),
        ("/cohere/nothing", "cohere-v1"),
        ("/vllm/score", "vllm-score"),
        ("/vllm/v2/rerank", "vllm"),
    ],
)
def test_prefix_of_a_path_selects_the_dialect(path: str, name: str) -> None:
    assert dialect_for_path(path).name == name


def test_root_has_the_configured_dialect() -> None:
    cohere = family("cohere")
    assert dialect_for_path("/v2/rerank", cohere).name == "cohere-v2"
    assert dialect_for_path("/v1/models", cohere).name == "cohere-v1"
    assert dialect_for_path("/tei/rerank", cohere).name == "tei"


def test_root_is_first_and_every_family_has_a_prefix() -> None:
    assert next(mounted_families()) == ("", SUPERSET)
    assert [prefix for prefix, _ in mounted_families()][1:] == [f"/{each.name}" for each in FAMILIES]


def test_paths_are_unique_within_a_family() -> None:
    for each in FAMILIES:
        paths = [path for dialect in each.dialects for path in (*dialect.paths, *dialect.aliases)]
        assert len(set(paths)) == len(paths)
