# Forecasts without torch: predict, run, score, status, show, check, use, shard, plots in the terminal.
#
#     docker build --tag rnnforecast:0.2.0 .
#
# With training; TORCH_INDEX is the address of the package index that has torch's builds for CPUs:
#
#     docker build --build-arg TRAIN=1 --build-arg TORCH_INDEX=... --tag rnnforecast:0.2.0-train .

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TRAIN=0
ARG TORCH_INDEX=
WORKDIR /src
RUN python -m venv --without-pip /opt/rnnforecast
COPY requirements-edge.txt constraints.txt ./
RUN if [ "$TRAIN" = 1 ]; then \
        pip --python /opt/rnnforecast install --no-cache-dir --constraint constraints.txt \
            ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch; \
    else \
        pip --python /opt/rnnforecast install --no-cache-dir --requirement requirements-edge.txt; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY rnnforecast rnnforecast
RUN if [ "$TRAIN" = 1 ]; then \
        pip --python /opt/rnnforecast install --no-cache-dir --constraint constraints.txt .; \
    else \
        pip --python /opt/rnnforecast install --no-cache-dir --no-deps .; \
    fi && rm -r /opt/rnnforecast/lib/python*/site-packages/pandas/tests \
        /opt/rnnforecast/lib/python*/site-packages/pyarrow/tests

FROM python:${PYTHON}-slim
RUN useradd --uid 1000 --create-home rnnforecast
COPY --from=build /opt/rnnforecast /opt/rnnforecast
ENV PATH=/opt/rnnforecast/bin:$PATH
USER 1000
WORKDIR /data
ENTRYPOINT ["rnnforecast"]
CMD ["--help"]
