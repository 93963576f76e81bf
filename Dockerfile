# The program `larder`: docker build -t larder . && docker run larder help
FROM rust:1.88-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --features manager,tls --bin larder && cp target/release/larder /larder

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /larder /usr/local/bin/larder
USER nobody
EXPOSE 8080
ENTRYPOINT ["larder"]
CMD ["manager"]
