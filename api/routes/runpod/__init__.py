"""RunPod's serverless API in front of jobs: its paths, bodies and statuses. The dialects render the outputs."""

from api.routes.runpod.routes import router

__all__ = ["router"]
