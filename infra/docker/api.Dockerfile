# The API image, without torch, vLLM and compilers. Build it from the repository's root:
#   docker build -f infra/docker/api.Dockerfile -t rerankq-api .
FROM docker.io/library/python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app PATH=/opt/venv/bin:$PATH RERANKQ_PAYLOADS=/data/payloads

# --build-arg TRACING=1 adds OpenTelemetry, for RERANKQ_TRACING=otlp.
ARG TRACING=
COPY requirements/api.txt requirements/tracing.txt /tmp/requirements/
RUN python -m venv /opt/venv \
 && pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements/api.txt \
 && if [ -n "$TRACING" ]; then pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements/tracing.txt; fi \
 && rm -r /tmp/requirements \
 && useradd --uid 10001 --no-create-home --home-dir /tmp rerankq \
 && mkdir /data \
 && chown rerankq /data

WORKDIR /app
COPY infra/models.yaml infra/models.yaml
COPY shared shared
COPY api api

# Uploaded files and the results of batches. Several API containers need one volume, or RERANKQ_PAYLOADS=s3://...
VOLUME /data
USER rerankq
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# The API must listen on all of the container's addresses: the published port controls who can reach it.
ENTRYPOINT ["python", "-m", "api"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
