from tests.shared.conftest import async_client, ledger

__all__ = ["async_client", "ledger"]
