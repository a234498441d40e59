# The Packeteur image. `--target demo` builds the image of the demo, which also contains tcpdump and Python.
#
#     docker build -t packeteur .
#     docker run --rm --cap-drop ALL --cap-add NET_RAW --network host -e RELAY_ENDPOINT=tcp://collector:7386 packeteur

# Build and runtime images. Both must be the same Debian release.
ARG BUILD=rust:1-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILD} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends libpcap-dev libsodium-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p pcktr && strip --strip-debug target/release/pcktr

FROM ${BASE} AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends libcap2-bin libpcap0.8 libsodium23 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 7386 pcktr \
 && useradd --system --uid 7386 --gid pcktr --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pcktr \
 # For KEY_FILE. A new volume that is mounted here gets the owner and the mode.
 && install -d -o pcktr -g pcktr -m 700 /var/lib/packeteur
COPY deploy/docker/healthy /usr/lib/packeteur/healthy
COPY --from=build /src/target/release/pcktr /usr/lib/packeteur/pcktr
# /usr/bin/pcktr has the file capability to open devices, so with `--cap-add NET_RAW` it does not need root. In a container
# without CAP_NET_RAW the kernel refuses to start it (capabilities(7), "Safety checking for capability-dumb binaries"): a
# collector that drops all capabilities runs /usr/lib/packeteur/pcktr instead.
RUN cp /usr/lib/packeteur/pcktr /usr/bin/pcktr && setcap cap_net_raw=ep /usr/bin/pcktr
# Numeric, so that Kubernetes can verify that it is not root.
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

# The default target of `docker build`.
FROM runtime AS pcktr
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Packeteur" \
      org.opencontainers.image.description="Relays captured packets from many hosts to one collector, and exports traffic metrics" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="debian:bookworm-slim"
