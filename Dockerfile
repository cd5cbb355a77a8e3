# The milestream binary, one image for every role: docker-compose.yml and any orchestrator choose by the command.
# The release of Rust is rust-toolchain.toml's; a test holds them together.
FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ gcc libssl-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches stay on the machine that builds; the binary must leave them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p milestream \
    && install -D target/release/milestream /out/milestream

FROM debian:12.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin milestream \
    && install -d -o milestream -g milestream \
        /var/lib/milestream /var/lib/milestream/keys /var/lib/milestream/signing /var/lib/milestream/distributor \
        /var/lib/milestream/services \
        /var/lib/milestream/photos /var/lib/milestream/photos/incoming
COPY --from=build /out/milestream /usr/local/bin/milestream
USER milestream
# A named volume takes these folders and their owner when it is first mounted (stages mount the photos read-only, so
# `incoming` must be there); milestream.toml is read from here, if there is one.
WORKDIR /var/lib/milestream
ENV MILESTREAM_OPS__LISTEN=0.0.0.0:9100
EXPOSE 8080 9100
# Bash speaks HTTP well enough, so no client has to be installed.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9100 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["milestream"]
CMD ["--help"]
