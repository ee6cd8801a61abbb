# syntax=docker/dockerfile:1.7
# The gRPC door, on NVIDIA's server. Its Python is 3.12 and so is the stub: the same locks, another interpreter.
ARG TRITON_BASE
FROM ${TRITON_BASE} AS build
ARG EXTRAS=features,release,postgres,reports,llm
ARG TORCH_INDEX=""
RUN python3 -c "import sys; assert sys.version_info[:2] == (3, 12), sys.version" \
 && python3 -m pip install --no-cache-dir --break-system-packages uv==0.13.8 \
 && uv venv --python /usr/bin/python3 /venv
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src/sidrec/__init__.py src/sidrec/
COPY infra/locks infra/locks
COPY infra/images/triton-without.txt infra/images/
RUN if [ -n "$TORCH_INDEX" ]; then uv pip install --python /venv/bin/python --index-url "$TORCH_INDEX" torch==2.13.0; fi \
 && uv pip install --python /venv/bin/python --no-cache --compile-bytecode -e ".[${EXTRAS}]" \
    -c infra/locks/python-3.11.txt --override infra/images/triton-without.txt
# The stub's environment: numpy 1.26 in front, the rest from /venv. `model.py` refuses to load under numpy 2.
RUN uv venv --python /usr/bin/python3 /opt/triton-home/stub \
 && uv pip install --no-deps --no-cache --target /opt/triton-home/stub/lib/python3.12/site-packages \
    "$(grep '^numpy' infra/locks/triton-overlay.txt)" \
 && echo "import site; site.addsitedir('/venv/lib/python3.12/site-packages')" \
    > /opt/triton-home/stub/lib/python3.12/site-packages/zz_project.pth \
 && mkdir -p /opt/triton-home/wheel/pytriton && ln -s /opt/tritonserver /opt/triton-home/wheel/pytriton/tritonserver

FROM ${TRITON_BASE}
ARG GIT_SHA=unknown
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/src:/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    SIDREC_GIT_SHA=${GIT_SHA} SIDREC_HOME=/state SIDREC_TRITON_HOME=/opt/triton-home HOME=/scratch \
    BENTOML_HOME=/scratch/bentoml DO_NOT_TRACK=true BENTOML_DO_NOT_TRACK=True HF_HUB_OFFLINE=1
RUN groupadd -g 10001 sidrec && useradd -u 10001 -g 10001 -M -d /scratch -s /usr/sbin/nologin sidrec \
 && install -d -o 10001 -g 10001 /state /scratch
COPY --from=build /venv /venv
COPY --from=build /opt/triton-home /opt/triton-home
WORKDIR /app
COPY pyproject.toml LICENSE ./
COPY src src
COPY serving serving
COPY feature_repo feature_repo
USER 10001:10001
EXPOSE 8001 8002
# Verifies digests and the signed verdict of what the ledger asks for, then serves it, then follows the ledger.
ENTRYPOINT ["python", "-m", "serving.container"]
CMD ["--host=0.0.0.0", "--grpc-port=8001", "--metrics-port=8002"]
