"""RunPod's serverless API in front of jobs: its paths, bodies and statuses. The dialects render the outputs."""

from fastapi import APIRouter

from api.routes.runpod import batches, routes
from api.routes.runpod.webhook_bodies import body_builder

router = APIRouter(prefix="/runpod/v2", tags=["runpod"])
router.include_router(routes.router)
router.include_router(batches.router)

__all__ = ["body_builder", "router"]
