# Two stages: pip, the build tool and the C compiler stay in the first. The image needs no writable root: the state directory is its only
# volume (`docker run --read-only --tmpfs /tmp -v state:/var/lib/sendengine …`).
FROM python:3.13-slim AS build
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/sendengine
COPY requirements/runtime.txt requirements/
RUN /opt/sendengine/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY sendengine sendengine
COPY requirements/dev.txt requirements/
COPY scripts scripts
RUN /opt/sendengine/bin/pip install --no-deps . && scripts/compile "$(echo /opt/sendengine/lib/python3.*/site-packages/sendengine)"
RUN cd / && SENDENGINE_COMPILED=1 /opt/sendengine/bin/python -c 'import sendengine.engine.worker' && /opt/sendengine/bin/pip uninstall -y pip

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
