"""RunPod's serverless API in front of jobs: its paths, bodies and statuses. The dialects render the outputs."""

from fastapi import APIRouter

from api.routes.runpod import batches, routes

router = APIRouter(prefix="/runpod/v2", tags=["runpod"])
router.include_router(routes.router)
router.include_router(batches.router)

__all__ = ["router"]
