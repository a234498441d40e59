# Packeteur's image, and with `--target demo` the one of the demonstration, which has tcpdump and Python besides.
#
#     docker build -t packeteur .
#     docker run --rm --cap-drop ALL --cap-add NET_RAW --network host -e RELAY_ENDPOINT=tcp://collector:7386 packeteur

# What it is compiled in, and what it runs on: one and the same release of Debian.
ARG BUILD=rust:1-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILD} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends libpcap-dev libzmq3-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p pcktr && strip --strip-debug target/release/pcktr

FROM ${BASE} AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends libcap2-bin libpcap0.8 libzmq5 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 7386 pcktr \
 && useradd --system --uid 7386 --gid pcktr --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pcktr
COPY deploy/docker/healthy /usr/lib/packeteur/healthy
COPY --from=build /src/target/release/pcktr /usr/lib/packeteur/pcktr
# The one that opens devices has the capability for it: with `--cap-add NET_RAW` it needs no root. Where a container has no
# CAP_NET_RAW to give, the kernel does not even start it (capabilities(7), "Safety checking for capability-dumb binaries"):
# a collector that drops all capabilities runs the one in /usr/lib/packeteur.
RUN cp /usr/lib/packeteur/pcktr /usr/bin/pcktr && setcap cap_net_raw=ep /usr/bin/pcktr
# By number, so that Kubernetes can see that it is not root.
USER 7386:7386
EXPOSE 7386 9108
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/lib/packeteur/healthy"]
ENTRYPOINT ["/usr/bin/pcktr"]

FROM runtime AS demo
USER root
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-minimal tcpdump \
 && rm -rf /var/lib/apt/lists/*
USER 7386:7386

# The last one is what `docker build` makes.
FROM runtime AS pcktr
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Packeteur" \
      org.opencontainers.image.description="Packets of many machines, seen from one place" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="debian:bookworm-slim"
