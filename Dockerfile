# Two stages: build with the toolchain, run with the libraries alone.
#   docker build --build-arg REVISION=$(git rev-parse --short=12 HEAD) -t serval . && docker run --rm -p 127.0.0.1:8000:8000 serval
FROM debian:bookworm AS build
WORKDIR /src
COPY deploy/install-packages deploy/install-packages
RUN deploy/install-packages build
COPY . .
# What serval --version shows; the sources come without their history.
ARG REVISION=
RUN cmake --preset release -DSERVAL_TESTS=OFF "-DSERVAL_REVISION=$REVISION" && cmake --build build/release --target serval && strip build/release/server/serval

FROM debian:bookworm-slim
COPY deploy/install-packages /tmp/install-packages
RUN /tmp/install-packages runtime && rm -rf /tmp/install-packages /var/lib/apt/lists/* && useradd --system serval
COPY --from=build /src/build/release/server/serval /usr/bin/serval
COPY deploy/models/serval-nano /models/serval-nano
USER serval
EXPOSE 8000 8001
# The container's own network is the boundary here; set SERVAL_API_KEYS when it is reachable by others. Not arguments: whoever names
# a model of their own replaces those, and the published ports would lead nowhere.
ENV SERVAL_HOST=0.0.0.0 SERVAL_GRPC_HOST=0.0.0.0 SERVAL_INSECURE=true
ENTRYPOINT ["serval", "serve"]
CMD ["/models/serval-nano"]
