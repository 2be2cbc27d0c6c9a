"""A client for the service: rerank calls, jobs, batches, and many concurrent requests, blocking or with asyncio.

    from client import Client

    with Client("http://127.0.0.1:8000") as client:
        for row in client.rerank("What is a panda?", ["hi", "it is a bear"], top_n=1).rows:
            print(row.score, row.text)

Needs httpx, and rich for the command line (`python -m client`). It imports nothing else of this repository, so the
folder can be copied.
"""

from client.asynchronous import AsyncClient
from client.batch_records import BatchJob, RequestResult, ResultsPage, StoredFile
from client.blocking import Client
from client.errors import RerankError
from client.records import Job, JobOutcome, Model, Options, Outcome, Ranking, Request, Row

__all__ = [
    "AsyncClient",
    "BatchJob",
    "Client",
    "Job",
    "JobOutcome",
    "Model",
    "Options",
    "Outcome",
    "Ranking",
    "Request",
    "RequestResult",
    "RerankError",
    "ResultsPage",
    "Row",
    "StoredFile",
]
