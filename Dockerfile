# The image of the agent: what a container on each node's own network needs, privileged or with the capability NET_ADMIN.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag ipvsproxy:0.1.0 .
#
# The base is the one of the release that requirements/ is locked for. Another registry's copy, or a newer digest, is
# given by these two; the digest goes before everything else.
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm
ARG PYTHON_DIGEST=sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# What changes seldom comes first. What builds the wheel stays in this stage.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python3 -m pip install --no-deps --require-hashes --requirement requirements/build.txt \
    && python3 -m pip download --dest wheels --only-binary=:all: --no-deps --require-hashes --requirement requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY ipvsproxy ipvsproxy
RUN python3 -m hatchling build --target wheel --directory wheels
COPY image/install.sh image/
RUN sh image/install.sh wheels requirements/run.txt

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST}
# The base's pip is of no use here. Its library comes without compiled files, and none could be written where it runs.
COPY image/debian-packages /tmp/debian-packages
RUN apt-get update \
    && sed 's/#.*//' /tmp/debian-packages \
        | xargs env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    && rm -rf /tmp/debian-packages /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
        /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
    && PYTHONHASHSEED=0 python3 -m compileall -q -f --invalidation-mode unchecked-hash -x '/(test|tests|lib2to3)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/ipvsproxy /opt/ipvsproxy
ENV PATH=/opt/ipvsproxy/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
# As root: it has the capabilities that the container is given, and without NET_ADMIN it says so and ends.
ENTRYPOINT ["ipvsproxy"]
# At the end: a new value is a new layer for all that comes after it.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title=ipvsproxy \
      org.opencontainers.image.description="Kubernetes Services in the kernel's IPVS load balancer" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
