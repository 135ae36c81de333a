FROM debian:trixie-slim AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \
      cmake ninja-build gcc libc6-dev pkg-config \
      libmicrohttpd-dev libcurl4-openssl-dev libjansson-dev libssl-dev libhiredis-dev libuv1-dev libllhttp-dev uthash-dev
WORKDIR /src
COPY . .
ARG REVISION=unknown
RUN cmake --preset release -DSPRITEGATE_TESTS=OFF -DSPRITEGATE_REVISION="$REVISION" \
 && cmake --build --preset release --target spritegate \
 && cmake --install build/release --prefix /out --strip

FROM debian:trixie-slim
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates libgnutls30t64 libcurl4t64 libjansson4 libssl3t64 libhiredis1.1.0 libuv1t64 libllhttp9.2 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt
COPY --from=build /out/bin/spritegate /usr/local/bin/spritegate
COPY LICENSE /usr/share/doc/spritegate/LICENSE
# A number, so that a runtime can see that it is not root.
USER 10001:10001
EXPOSE 8080 9091
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["spritegate", "health"]
ENTRYPOINT ["spritegate"]
CMD ["serve"]
