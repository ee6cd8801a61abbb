# syntax=docker/dockerfile:1.7
# Pipeline steps on a CPU, the drift dashboards, the schedule reconciler: everything but what fits a model.
ARG PYTHON_BASE
FROM ${PYTHON_BASE} AS build
ARG EXTRAS=pipelines,validation,features,release,postgres,monitoring,embedding,reports,llm,spark
# Index with builds of torch for the CPU; without one, PyPI's build for CUDA is installed, which is 2 GB more.
ARG TORCH_INDEX=""
RUN python -m pip install --no-cache-dir uv==0.13.8 && python -m venv /venv
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src/sidrec/__init__.py src/sidrec/
COPY infra/locks infra/locks
COPY infra/triton_home.sh infra/
RUN if [ -n "$TORCH_INDEX" ]; then uv pip install --python /venv/bin/python --index-url "$TORCH_INDEX" torch==2.13.0; fi \
 && uv pip install --python /venv/bin/python --no-cache --compile-bytecode -e ".[${EXTRAS}]" -c infra/locks/python-3.11.txt
# `check_serving` asks a real server: the wheel's, which is the one that laptops run.
RUN bash infra/triton_home.sh /venv

FROM ${PYTHON_BASE}
ARG GIT_SHA=unknown
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/src:/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    SIDREC_GIT_SHA=${GIT_SHA} SIDREC_HOME=/state HOME=/scratch \
    DO_NOT_TRACK=true BENTOML_DO_NOT_TRACK=True GX_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
# Spark, where SIDREC_DATA_ENGINE names it, runs on Java.
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless && rm -rf /var/lib/apt/lists/*
RUN groupadd -g 10001 sidrec && useradd -u 10001 -g 10001 -M -d /scratch -s /usr/sbin/nologin sidrec \
 && install -d -o 10001 -g 10001 /state /scratch
COPY --from=build /venv /venv
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY components components
COPY pipelines pipelines
COPY feature_repo feature_repo
COPY monitoring monitoring
COPY serving serving
COPY infra/cluster.yaml infra/schedules.yaml infra/
COPY infra/pipelines infra/pipelines
USER 10001:10001
ENTRYPOINT []
CMD ["sidrec", "--help"]
