"""The whole service with a Redis behind TLS."""

import asyncio
from pathlib import Path

import httpx

from infra.local.stack import Options, Stack
from tests.stacks import PANDA
from tests.tls import make_certificate, tls_proxy


async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
    return await client.post("/v1/rerank", json=PANDA | {"query": f"giant panda {number}"})


async def test_requests_and_jobs_succeed_from_the_first_call_on(redis_url: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with (
        tls_proxy(redis_url, certificate) as url,
        Stack(Options(port=0, engine="lexical", redis_url=f"{url}?ssl_ca_certs={certificate}", pool={})) as stack,
    ):
        stack.start_service()
        stack.wait_ready(60)
        async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
            responses = [await ask(client, 0)]
            responses += await asyncio.gather(*(ask(client, number) for number in range(1, 50)))
            assert [response.status_code for response in responses] == [200] * 50
            job = (await client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"})).json()
            ended = await client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=20"})
            assert ended.json()["status"] == "succeeded"
