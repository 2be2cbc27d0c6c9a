from api.http.responses import json_response


def test_json_response_is_compact_utf8() -> None:
    response = json_response({"a": ["ü", 0.5]}, 202, {"X-Test": "1"})
    assert bytes(response.body) == '{"a":["ü",0.5]}'.encode()
    assert (response.status_code, response.headers["content-type"]) == (202, "application/json")
    assert response.headers["x-test"] == "1"
