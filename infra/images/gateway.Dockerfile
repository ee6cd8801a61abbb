# syntax=docker/dockerfile:1.7
# The HTTP door. It computes nothing: what the library's numbers need stays out (gateway-without.txt).
ARG PYTHON_BASE
FROM ${PYTHON_BASE} AS build
ARG EXTRAS=gateway,features
RUN python -m pip install --no-cache-dir uv==0.13.8 && python -m venv /venv
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src/sidrec/__init__.py src/sidrec/
COPY infra/locks infra/locks
COPY infra/images/gateway-without.txt infra/images/
RUN uv pip install --python /venv/bin/python --no-cache --compile-bytecode -e ".[${EXTRAS}]" \
    -c infra/locks/python-3.11.txt --override infra/images/gateway-without.txt

FROM ${PYTHON_BASE}
ARG GIT_SHA=unknown
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/src:/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    SIDREC_GIT_SHA=${GIT_SHA} SIDREC_HOME=/state HOME=/scratch BENTOML_HOME=/scratch/bentoml \
    DO_NOT_TRACK=true BENTOML_DO_NOT_TRACK=True
RUN groupadd -g 10001 sidrec && useradd -u 10001 -g 10001 -M -d /scratch -s /usr/sbin/nologin sidrec \
 && install -d -o 10001 -g 10001 /state /scratch
COPY --from=build /venv /venv
WORKDIR /app
COPY pyproject.toml LICENSE ./
COPY src src
COPY serving serving
COPY feature_repo feature_repo
COPY docs/contract.md docs/
USER 10001:10001
EXPOSE 3000
ENTRYPOINT ["python", "-m", "bentoml", "serve", "serving.gateway.service:Gateway"]
CMD ["--host", "0.0.0.0", "--port", "3000", "--working-dir", "/app"]
