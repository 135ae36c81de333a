FROM debian:trixie-slim AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \
      cmake ninja-build gcc libc6-dev musl-tools pkg-config \
      libmicrohttpd-dev libcurl4-openssl-dev libjansson-dev libssl-dev libhiredis-dev libuv1-dev libllhttp-dev libseccomp-dev uthash-dev
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY gateway gateway
COPY policy policy
ARG REVISION=unknown
RUN cmake --preset release -DSPRITEGATE_TESTS=OFF -DSPRITEGATE_REVISION="$REVISION" \
 && cmake --build --preset release --target spritegate \
 && cmake --install build/release --prefix /out --strip
COPY deploy/sbom deploy/sbom
RUN sh deploy/sbom >/out/linked

FROM debian:trixie-slim AS gateway
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates libgnutls30t64 libcurl4t64 libjansson4 libssl3t64 libhiredis1.1.0 libuv1t64 libllhttp9.2 libseccomp2 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt
COPY --from=build /out/bin/spritegate /usr/local/bin/spritegate
COPY LICENSE /usr/share/doc/spritegate/LICENSE
RUN --mount=type=bind,source=deploy/sbom,target=/tmp/sbom --mount=type=bind,from=build,source=/out/linked,target=/tmp/linked \
    sh /tmp/sbom "$(spritegate version | cut -d ' ' -f 2)" /tmp/linked >/usr/share/doc/spritegate/sbom.cdx.json
# A number, so that a runtime can see that it is not root.
USER 10001:10001
EXPOSE 8080 9091
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["spritegate", "health"]
ENTRYPOINT ["spritegate"]
CMD ["serve"]

# Both on one machine, by --target with-datasette: deploy/one-machine.
FROM gateway AS with-datasette
ARG DEBIAN_FRONTEND=noninteractive
# It starts as root and gives each program a user of its own.
USER 0:0
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt
# Where TLS goes through a proxy: a file with its certificate.
ARG PIP_CERT
COPY deploy/one-machine/requirements.txt /opt/datasette/requirements.txt
RUN python3 -m venv /opt/datasette && /opt/datasette/bin/pip install --no-cache-dir -r /opt/datasette/requirements.txt \
 && ln -s /opt/datasette/bin/datasette /usr/local/bin/datasette
RUN --mount=type=bind,source=deploy/sbom,target=/tmp/sbom --mount=type=bind,from=build,source=/out/linked,target=/tmp/linked \
    sh /tmp/sbom "$(spritegate version | cut -d ' ' -f 2)" /tmp/linked /opt/datasette >/usr/share/doc/spritegate/sbom.cdx.json
# A new volume takes over whose it is, where the container's runtime does that; deploy/one-machine/run does it elsewhere.
RUN install -d -o 10002 -g 10002 /data
COPY deploy/one-machine/run /usr/local/bin/gateway-and-datasette
# Where its Datasette listens, also for `spritegate doctor` in a shell of its own.
ENV SPRITEGATE_DATASETTE_URL=unix:/run/datasette/datasette.sock
ENTRYPOINT ["gateway-and-datasette"]
CMD ["--memory"]

FROM gateway
