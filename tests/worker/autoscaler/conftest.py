from tests.worker.conftest import async_client, ledger, store

__all__ = ["async_client", "ledger", "store"]
