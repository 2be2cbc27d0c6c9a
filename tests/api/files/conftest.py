from tests.api.batches.conftest import bench

__all__ = ["bench"]
