# Two stages: pip, the build tool and the C compiler stay in the first. The image needs no writable root: the state directory is its only
# volume (`docker run --read-only --tmpfs /tmp -v state:/var/lib/sendengine …`).
FROM python:3.13-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/sendengine
COPY requirements/runtime.txt requirements/
RUN /opt/sendengine/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY sendengine sendengine
RUN /opt/sendengine/bin/pip install --no-deps . && /opt/sendengine/bin/pip uninstall -y pip
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY requirements/dev.txt requirements/
COPY scripts/venv scripts/compile scripts/compile.py scripts/
RUN scripts/compile "$(echo /opt/sendengine/lib/python3.*/site-packages/sendengine)"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/sendengine --create-home sendengine
COPY --from=build /opt/sendengine /opt/sendengine
ENV PATH=/opt/sendengine/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SENDENGINE_STATE_DIR=/var/lib/sendengine
USER sendengine
WORKDIR /var/lib/sendengine
VOLUME /var/lib/sendengine
STOPSIGNAL SIGTERM
ENTRYPOINT ["sendengine"]
CMD ["--help"]
