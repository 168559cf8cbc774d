#!/bin/bash
# Prepare a host of a cluster: packages, sandbox, GPU driver, EFA, the shared folder. Repeating it does no harm.
# Usage: bash prepare_host.sh [NFS_EXPORT]      mounts the export, host:/path, at /shared
# Writes ~/.r1ray_env, which every command on the host needs: PATH, the token's mode, settings of NCCL.
set -eu

lowest_driver=580  # of the CUDA 13 wheels that conf/pins/gpu.txt installs
devices=${R1RAY_PCI_DEVICES:-/sys/bus/pci/devices}
amazon=${R1RAY_AMAZON:-/opt/amazon}

refuse() {
    echo "r1ray: $(hostname) cannot be used: $1" >&2
    exit 1
}

# apt's own timeout does not cover the lock of its package lists, which Ubuntu's first boot holds for minutes.
with_lock() {
    local try
    for try in $(seq "${R1RAY_APT_TRIES:-60}"); do
        "$@" && return
        sleep "${R1RAY_APT_PAUSE_S:-10}"
    done
    refuse "'$*' still fails after $try attempts; its message stands above"
}

has_vendor() {
    grep -qs "$1" "$devices"/*/vendor
}

install_packages() {
    local missing="" pair
    for pair in bwrap:bubblewrap make:make rsync:rsync mount.nfs4:nfs-common; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
    done
    python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv python3-dev"
    [ -z "$missing" ] && return
    with_lock sudo apt-get update -qq
    # shellcheck disable=SC2086
    with_lock sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=60 install -qq -y $missing
}

# Ubuntu 24.04 keeps programs without an AppArmor profile from making user namespaces, which the sandbox consists of.
allow_sandbox() {
    local key=kernel.apparmor_restrict_unprivileged_userns
    if [ "$(sysctl -n "$key" 2>/dev/null || echo 0)" = 1 ]; then
        echo "$key = 0" | sudo tee /etc/sysctl.d/60-r1ray.conf >/dev/null
        sudo sysctl -q -w "$key=0"
    fi
    bwrap --unshare-user --unshare-pid --ro-bind / / true ||
        refuse "bubblewrap cannot make a sandbox (user namespaces are not allowed), so code rewards would be refused"
}

check_driver() {
    has_vendor 0x10de || return 0
    local found
    found=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
    [ -n "$found" ] || refuse "it has an NVIDIA GPU but no working driver (nvidia-smi fails); choose an image with one"
    [ "${found%%.*}" -ge "$lowest_driver" ] ||
        refuse "its GPU driver is $found, r1ray's CUDA 13 packages need $lowest_driver or newer; choose a newer image"
}

# Without the plugin NCCL would use TCP between nodes, silently and many times slower.
efa_settings() {
    if ! has_vendor 0x1d0f || ! "$amazon/efa/bin/fi_info" -p efa >/dev/null 2>&1; then
        has_vendor 0x10de && echo "r1ray: $(hostname) has GPUs but no EFA: NCCL will use TCP between nodes" >&2
        return 0
    fi
    local plugin
    plugin=$(find -L "$amazon/ofi-nccl" -name 'libnccl-net*.so' 2>/dev/null | sort | head -n 1)
    [ -n "$plugin" ] || refuse "it has EFA but no aws-ofi-nccl plugin under $amazon/ofi-nccl; choose an image with it"
    echo "export FI_PROVIDER=efa FI_EFA_USE_DEVICE_RDMA=1 FI_EFA_FORK_SAFE=1"
    echo "export NCCL_NET_PLUGIN=$plugin NCCL_SOCKET_IFNAME=^docker,lo"
    echo "export LD_LIBRARY_PATH=$amazon/efa/lib:$(dirname "$plugin")\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
}

mount_shared() {
    mountpoint -q /shared && return
    sudo mkdir -p /shared
    sudo mount -t nfs4 -o nfsvers=4.1,hard,timeo=600,retrans=2 "$1" /shared ||
        refuse "$1 cannot be mounted at /shared; check the address, and that its security group admits this host"
    sudo chown "$(id -u):$(id -g)" /shared
}

install_packages
allow_sandbox
check_driver
{
    echo "export PATH=\$HOME/r1ray/.venv/bin:\$PATH RAY_AUTH_MODE=token"
    efa_settings
} >~/.r1ray_env.new
mv ~/.r1ray_env.new ~/.r1ray_env
grep -qs r1ray_env ~/.bashrc || echo '. ~/.r1ray_env' >>~/.bashrc
[ $# = 0 ] || mount_shared "$1"
