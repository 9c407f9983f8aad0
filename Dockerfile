# plw on CUDA GPUs. Another image of Debian or Ubuntu with Python 3.11 or newer: --build-arg BASE=...
# What was built and run so far: docs/first-hour.md.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${BASE}

# g++ and the headers of Python: Triton and DeepSpeed compile their operations at first use.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV VIRTUAL_ENV=/opt/plw PATH=/opt/plw/bin:$PATH PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml constraints.txt MANIFEST.in README.md LICENSE ./
COPY trainers trainers
COPY evals evals
COPY orchestrator orchestrator
RUN python3 -m venv /opt/plw \
    && pip install --constraint constraints.txt '.[all]'

# Mount data and results here; --shm-size 8g or more for several ranks.
WORKDIR /work
CMD ["plw", "--help"]
