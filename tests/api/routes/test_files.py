"""`/v1/files`: upload, list, read, download and delete."""

from typing import Any

import pytest

from tests.api.batches.support import Bench, StubLines, good_line, lines_as_file
from tests.api.payloads.support import objects
from tests.api.routes.conftest import MAX_FILE_BYTES, Api, error_of


async def test_uploaded_file_is_described_and_downloaded(api: Api) -> None:
    file = await api.upload(b"{}\r\n\xff", "panda.jsonl")
    assert (
        file.items()
        >= {
            "object": "file",
            "bytes": 5,
            "filename": "panda.jsonl",
            "purpose": "batch",
            "status": "processed",
        }.items()
    )
    assert file["expires_at"] - file["created_at"] == 7 * 86_400
    assert (await api.mine.get(f"/v1/files/{file['id']}")).json() == file
    response = await api.mine.get(f"/v1/files/{file['id']}/content")
    assert (response.content, response.headers["content-type"]) == (b"{}\r\n\xff", "application/jsonl")
    assert response.headers["content-disposition"] == 'attachment; filename="panda.jsonl"'


async def test_empty_file(api: Api) -> None:
    file = await api.upload(b"")
    response = await api.mine.get(f"/v1/files/{file['id']}/content")
    assert (file["bytes"], response.content, response.headers["content-length"]) == (0, b"", "0")


@pytest.mark.parametrize("filename", ['a"b.jsonl', "a\r\nSet-Cookie: x.jsonl", "panda-熊猫.jsonl", "../../x"])
async def test_no_name_breaks_the_header(api: Api, filename: str) -> None:
    file = await api.upload(filename=filename)
    disposition = (await api.mine.get(f"/v1/files/{file['id']}/content")).headers["content-disposition"]
    assert disposition.startswith('attachment; filename="')
    assert not set('"\r\n/') & set(disposition.removeprefix('attachment; filename="').removesuffix('"'))


async def test_lifetime_is_the_callers(api: Api) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = await api.upload(b"{}\n", "in.jsonl", **fields)
    assert file["expires_at"] - file["created_at"] == 3600


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": ""}, "purpose"),
        ({"purpose": "fine-tune"}, "purpose"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "59"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": str(31 * 86_400)}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "soon"}, "expires_after[seconds]"),
    ],
)
async def test_field_of_an_upload_that_is_wrong_is_named(
    api: Api, bench: Bench, fields: dict[str, str], param: str
) -> None:
    data = {"purpose": "batch"} | fields
    response = await api.mine.post("/v1/files", files={"file": ("x", b"{}")}, data=data)
    assert error_of(response) == (400, param)
    assert await objects(bench.payloads) == {}


async def test_upload_without_a_file_is_an_error(api: Api, bench: Bench) -> None:
    responses = [
        await api.mine.post("/v1/files", files={"other": ("x", b"{}")}, data={"purpose": "batch"}),
        await api.mine.post("/v1/files", json={"purpose": "batch"}),
        await api.mine.post("/v1/files"),
    ]
    assert [response.status_code for response in responses] == [400, 400, 400]
    assert await objects(bench.payloads) == {}


async def test_file_over_the_limit_is_413_and_not_stored(api: Api, bench: Bench) -> None:
    await api.upload(b"x" * MAX_FILE_BYTES)
    before = await objects(bench.payloads)
    files = {"file": ("x", b"x" * (MAX_FILE_BYTES + 1))}
    assert error_of(await api.mine.post("/v1/files", files=files, data={"purpose": "batch"}))[0] == 413
    assert await objects(bench.payloads) == before


async def test_file_is_deleted_once(api: Api) -> None:
    file = await api.upload()
    path = f"/v1/files/{file['id']}"
    assert (await api.mine.delete(path)).json() == {"id": file["id"], "object": "file", "deleted": True}
    for call in (api.mine.delete(path), api.mine.get(path), api.mine.get(f"{path}/content")):
        assert error_of(await call) == (404, "file_id")


async def test_file_that_a_batch_reads_is_409(api: Api) -> None:
    batch = await api.create_batch()
    response = await api.mine.delete(f"/v1/files/{batch['input_file_id']}")
    assert error_of(response) == (409, "file_id")
    assert batch["id"] in response.json()["message"]


async def test_file_of_another_key_is_404(api: Api) -> None:
    path = f"/v1/files/{(await api.upload())['id']}"
    for call in (api.other.get(path), api.other.get(f"{path}/content"), api.other.delete(path)):
        assert error_of(await call) == (404, "file_id")
    assert (await api.other.get("/v1/files")).json()["data"] == []
    assert (await api.mine.get(path)).status_code == 200


class TestLists:
    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_together_have_every_file_once(self, api: Api, order: str) -> None:
        created = [(await api.upload())["id"] for _ in range(5)]
        seen: list[str] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after: dict[str, Any] = {} if page["last_id"] is None else {"after": page["last_id"]}
            page = (await api.mine.get("/v1/files", params={"limit": "2", "order": order} | after)).json()
            assert page["first_id"] == page["data"][0]["id"]
            seen += [file["id"] for file in page["data"]]
        assert sorted(seen) == sorted(created)
        times = [(await api.mine.get(f"/v1/files/{file_id}")).json()["created_at"] for file_id in seen]
        assert times == sorted(times, reverse=order == "desc")

    async def test_empty_list(self, api: Api) -> None:
        page: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
        assert (await api.mine.get("/v1/files")).json() == page

    async def test_purpose_selects(self, api: Api, bench: Bench) -> None:
        batch = await api.create_batch(lines_as_file([good_line(1)]))
        await bench.run(StubLines(), batch_id=batch["id"])
        for purpose in ("batch", "batch_output"):
            (file,) = (await api.mine.get("/v1/files", params={"purpose": purpose})).json()["data"]
            assert file["purpose"] == purpose
        assert len((await api.mine.get("/v1/files")).json()["data"]) == 2

    @pytest.mark.parametrize(
        ("name", "value", "status"),
        [
            ("limit", "0", 400),
            ("limit", "10001", 400),
            ("limit", "-1", 400),
            ("limit", "ten", 400),
            ("limit", "", 400),
            ("limit", "٣", 400),
            ("order", "up", 400),
            ("after", "file-unknown", 404),
        ],
    )
    async def test_parameter_that_is_wrong_is_named(self, api: Api, name: str, value: str, status: int) -> None:
        param = "file_id" if name == "after" else name
        assert error_of(await api.mine.get("/v1/files", params={name: value})) == (status, param)


async def test_results_are_downloaded(api: Api, bench: Bench) -> None:
    batch = await api.create_batch(lines_as_file([good_line(number) for number in range(1, 4)]))
    record = await bench.run(StubLines(failing=(2,)), batch_id=batch["id"])
    for file_id, count in ((record.output_file, 2), (record.error_file, 1)):
        response = await api.mine.get(f"/v1/files/{file_id}/content")
        assert len(response.text.splitlines()) == count
        assert response.headers["content-length"] == str(len(response.content))
        assert error_of(await api.other.get(f"/v1/files/{file_id}/content")) == (404, "file_id")
