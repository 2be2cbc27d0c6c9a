# The worker images for CPU and GPU. Build them from the repository's root:
#   docker build -f infra/docker/worker.Dockerfile --target cpu -t rerankq-worker:cpu .
#   docker build -f infra/docker/worker.Dockerfile --target gpu -t rerankq-worker:gpu .

FROM docker.io/library/python:3.11-slim AS cpu

ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app HOME=/cache PATH=/opt/venv/bin:$PATH

# --build-arg TRACING=1 adds OpenTelemetry's exporter, for RERANKQ_TRACING=otlp.
ARG TRACING=
COPY requirements/torch-cpu.txt requirements/worker-cpu.txt requirements/model.txt requirements/tracing.txt /tmp/requirements/
# libnuma is the only system library that vLLM's CPU build needs. torch's CPU build is not on PyPI: pip tries the
# configured index first, then PyTorch's own.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libnuma1 \
 && rm -rf /var/lib/apt/lists/* \
 && cd /tmp/requirements \
 && python -m venv /opt/venv \
 && install="pip install --no-cache-dir --no-deps" \
 && ($install -r torch-cpu.txt || $install --index-url https://download.pytorch.org/whl/cpu -r torch-cpu.txt) \
 && $install --require-hashes -r worker-cpu.txt -r model.txt \
 && if [ -n "$TRACING" ]; then $install --require-hashes -r tracing.txt; fi \
 && rm -r /tmp/requirements \
 && useradd --uid 10001 --no-create-home --home-dir /cache rerankq \
 && install -d -o rerankq /cache

WORKDIR /app
COPY infra/models.yaml infra/models.yaml
COPY shared shared
COPY worker worker

USER rerankq
# Loading a model takes a while, and downloading a large one much longer: the start period covers both.
HEALTHCHECK --interval=10s --timeout=10s --start-period=600s --retries=3 CMD ["python", "-m", "worker.process.health"]
ENTRYPOINT ["python", "-m", "worker"]

# vLLM's own image, in the locked version, contains CUDA, the driver libraries and the compiler that Triton needs.
FROM docker.io/vllm/vllm-openai:v0.32.0 AS gpu

ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app HOME=/cache

ARG TRACING=
COPY requirements/api.txt requirements/model.txt requirements/tracing.txt /tmp/requirements/
RUN cd /tmp/requirements \
 && PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-deps --require-hashes \
    -r api.txt -r model.txt ${TRACING:+-r tracing.txt} \
 && rm -r /tmp/requirements \
 && useradd --uid 10001 --no-create-home --home-dir /cache rerankq \
 && install -d -o rerankq /cache

WORKDIR /app
COPY infra/models.yaml infra/models.yaml
COPY shared shared
COPY worker worker

USER rerankq
HEALTHCHECK --interval=10s --timeout=10s --start-period=600s --retries=3 CMD ["python3", "-m", "worker.process.health"]
ENTRYPOINT ["python3", "-m", "worker"]
