# The image of conf/clusters/kuberay.yaml: docker build -t registry.example.com/r1ray:0.1.0 .
# Ray's image without CUDA: the wheels of torch and vLLM bring CUDA 13, the host's driver (580 or newer) the rest.
FROM rayproject/ray:2.60.0-py312

USER root
# bubblewrap: the sandbox for code of models; g++: kernels that vLLM and DeepSpeed compile at their first use.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap g++ make \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /shared /local && chown ray:users /shared /local
USER ray

WORKDIR /home/ray/r1ray
COPY --chown=ray:users conf/pins/gpu.txt pins.txt
# DeepSpeed is built from source against the installed torch, hence first setuptools and torch, then the rest.
RUN pip install --no-cache-dir $(grep -E '^(setuptools|torch)==' pins.txt) \
    && DS_BUILD_OPS=0 pip install --no-cache-dir --no-build-isolation -r pins.txt

COPY --chown=ray:users . .
ARG VERSION=0.1.0
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && test "$(python -c 'from importlib.metadata import version; print(version("r1ray"))')" = "$VERSION" \
    && test "$(python -c 'import ray; print(ray.__version__)')" = 2.60.0
LABEL org.opencontainers.image.title=r1ray org.opencontainers.image.version=$VERSION

WORKDIR /home/ray
ENV RAY_AUTH_MODE=token OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
