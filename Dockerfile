# syntax=docker/dockerfile:1
# Images of chatbot. Targets:
#
#   docker build --target bots     --tag chatbot:1 .            run the bots of a bots.yaml that is mounted at /bots
#   docker build --target emulator --tag chatbot-emulator:1 .   the emulator of Azure Communication Services Chat
#
# BASE is any image with Python 3.11 or newer that includes the module venv; build and run stages use the same one.
ARG BASE=python:3.13-slim

# ── build: an environment in /opt/chatbot, which is all that the other stages take from here
FROM ${BASE} AS build
WORKDIR /source
# The extras that the image has. The other ones: otel (traces).
ARG EXTRAS=entra,postgres,uvloop
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml README.md LICENSE chatbot_acs_pytest.py ./
COPY chatbot ./chatbot
COPY plugins ./plugins
RUN python3 -m venv /opt/chatbot \
    && /opt/chatbot/bin/python -m pip install --quiet ".[${EXTRAS}]" \
    && /opt/chatbot/bin/python -m pip uninstall --quiet --yes pip setuptools \
    && find /opt/chatbot -name '*.pyc' -delete

# ── base: an ordinary user, and no write access anywhere but in /bots, /data and /tmp
FROM ${BASE} AS base
RUN groupadd --gid 10001 chatbot \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin chatbot \
    && install -d -o 10001 -g 10001 -m 0700 /bots /data
COPY --from=build /opt/chatbot /opt/chatbot
ENV PATH=/opt/chatbot/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 10001:10001
# SIGTERM finishes what is in progress, for `drain_timeout` of bots.yaml at most.
STOPSIGNAL SIGTERM

# ── emulator: for any official SDK; /data holds its state and its certificate authority (/data/certificates/ca.pem)
FROM base AS emulator
WORKDIR /data
EXPOSE 8443
# Others reach it by this name; it is part of the certificate and of the connection string that it prints.
ENV CHATBOT_PUBLIC_HOST=localhost:8443
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8443), 2).close()"]
ENTRYPOINT ["sh", "-c", "exec chatbot emulator --tls --host 0.0.0.0 --port 8443 --public-host \"$CHATBOT_PUBLIC_HOST\" --certificates /data/certificates --data /data/emulator.db \"$@\"", "chatbot"]

# ── bots: the last stage, so it is what a build without --target makes
FROM base AS bots
WORKDIR /bots
EXPOSE 8080
# /bots holds bots.yaml, plugins/, the store and .chatbot. `chatbot status` asks over the control socket in .chatbot.
# Degraded bots (exit code 75) are healthy: a restart would not help them.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["sh", "-c", "chatbot status /bots/bots.yaml > /dev/null || [ $? -eq 75 ]"]
ENTRYPOINT ["chatbot"]
CMD ["run", "--require-azure", "--log-format", "json", "/bots/bots.yaml"]
