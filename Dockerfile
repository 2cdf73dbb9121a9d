# The proxy alone. Mount a proxy.toml at /etc/sluicegate/proxy.toml, or run `docker compose up` for a whole example.

FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin sluicegate \
 && cp target/release/sluicegate /usr/local/bin/sluicegate

FROM debian:bookworm-slim
# ca-certificates: the roots that `tls = "verify-full"` trusts unless ca_file says otherwise.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/*
# A fixed number, so that who mounts a private key can give it to this user.
RUN groupadd --system --gid 10432 sluicegate \
 && useradd --system --uid 10432 --gid 10432 --home-dir /var/lib/sluicegate --shell /usr/sbin/nologin sluicegate \
 && install -d -o sluicegate -g sluicegate -m 700 /var/lib/sluicegate \
 && install -d -m 755 /etc/sluicegate
COPY --from=build /usr/local/bin/sluicegate /usr/local/bin/sluicegate
COPY LICENSE /usr/share/doc/sluicegate/LICENSE

USER sluicegate
WORKDIR /var/lib/sluicegate
# state_dir: the writer that is followed must survive a new container.
VOLUME /var/lib/sluicegate
# Endpoints as in the example; a proxy.toml may listen elsewhere. The admin port (9632) stays on the container's loopback.
EXPOSE 6432 6433 6434 3307

# SIGTERM drains: open transactions get `shutdown_timeout` (30 s by default) to end.
STOPSIGNAL SIGTERM
# The image has no curl; bash opens the connection itself.
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["bash", "-c", \
  "exec 3<>/dev/tcp/127.0.0.1/9632 && printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r -t 2 _ status _ <&3 && [[ $status = 200 ]]"]

ENTRYPOINT ["sluicegate"]
CMD ["serve", "--config", "/etc/sluicegate/proxy.toml"]
