# syntax=docker/dockerfile:1.7
# What fits a model, on CUDA: torch's wheel carries CUDA itself, the node's driver comes from its container runtime.
ARG PYTHON_BASE
FROM ${PYTHON_BASE} AS build
ARG EXTRAS=pipelines,embedding,reports,training,llm
RUN python -m pip install --no-cache-dir uv==0.13.8 && python -m venv /venv
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src/sidrec/__init__.py src/sidrec/
COPY infra/locks infra/locks
RUN uv pip install --python /venv/bin/python --no-cache --compile-bytecode -e ".[${EXTRAS}]" -c infra/locks/python-3.11.txt

FROM ${PYTHON_BASE}
ARG GIT_SHA=unknown
# `torch.compile` writes kernels and builds them with a C compiler.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/src:/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    SIDREC_GIT_SHA=${GIT_SHA} SIDREC_HOME=/state HOME=/scratch \
    DO_NOT_TRACK=true HF_HUB_OFFLINE=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN groupadd -g 10001 sidrec && useradd -u 10001 -g 10001 -M -d /scratch -s /usr/sbin/nologin sidrec \
 && install -d -o 10001 -g 10001 /state /scratch
COPY --from=build /venv /venv
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY components components
USER 10001:10001
ENTRYPOINT []
CMD ["python", "-m", "torch.distributed.run", "--help"]
