#!/bin/sh
# The first process of the bench's virtual machine: brings the kernel up, runs /job, reports its exit status, ends.
#
# Ports of the virtio-serial device, in the order that testbench/vm.rs gives them:
#   p1 standard input   p2 standard output   p3 standard error   p4 reports: "up", "alive" ..., "exit STATUS"
# The kernel's messages and this script's own complaints go to the console, which the host keeps as a log.
PATH=/usr/sbin:/usr/bin:/usr/lib/busybox
export PATH HOME=/root

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir /dev/net
mknod /dev/net/tun c 10 200
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
hostname bench
# A node has memory control groups too. One that stays: for the first and after the last one the kernel patches its own
# code, which can fail while several processors are emulated.
if mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo +memory >/sys/fs/cgroup/cgroup.subtree_control; then
    mkdir /sys/fs/cgroup/bench
fi

off() {
    reboot -f
    # Until the machine is off.
    sleep 60
}

# A parameter of the kernel's command line that is meant for us: bench.NAME=VALUE
parameter() {
    sed -n "s/.*bench\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

for module in virtio_pci virtio_console; do
    modprobe "$module" || echo "bench: no $module in this kernel"
done
# The ports come some milliseconds after their modules. Ten seconds of looking only end a hang.
tries=0
until set -- /dev/vport*p4 && [ -e "$1" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 500 ]; then
        echo "bench: the virtio-serial ports did not appear"
        off
    fi
    sleep 0.02
done
port=${1%4}

ip link set lo up
# What every node of a cluster has; ip_vs is left to be loaded by its first user, as on a node.
# nft would load its expressions one by one, starting its transaction over each time: half a minute when emulated.
modprobe -aq br_netfilter nf_conntrack nf_conntrack_netlink veth nf_tables nft_compat nft_ct nft_chain_nat nft_fib_inet \
    nft_hash nft_limit nft_log nft_masq nft_nat nft_numgen nft_redir nft_reject_inet nft_reject_ipv4 nft_reject_ipv6
ulimit -n 65536

if [ "$(parameter net)" = user ]; then
    # The addresses of qemu's user networking: the host is 10.0.2.2, a resolver 10.0.2.3.
    modprobe virtio_net
    ip link set eth0 up
    ip address add 10.0.2.15/24 dev eth0
    ip route add default via 10.0.2.2
    echo "nameserver 10.0.2.3" >/etc/resolv.conf
fi

# How many times slower than usual this machine is: emulated, it is usually here within six seconds. Limits that end a
# hang are that much longer.
uptime=$(cut -d. -f1 /proc/uptime)
export KUBE_IPVS_SLOWNESS=$(((uptime + 5) / 6))

# The host watches the boot line by line; from now on the kernel logs warnings only.
echo 5 >/proc/sys/kernel/printk

exec 4>"${port}4"
echo up >&4
# A machine whose timers stop cannot end a hang itself. The host gives it up when these lines stop.
while sleep 10; do echo alive; done >&4 &
# A task that waits in the kernel for so many seconds, or up to twice as many, waits for ever: the kernel prints its
# stack and panics. A slower machine gets more time.
echo $((900 * KUBE_IPVS_SLOWNESS)) >/proc/sys/kernel/hung_task_timeout_secs
echo 1 >/proc/sys/kernel/hung_task_panic

if [ "$(parameter terminal)" ]; then
    size=$(parameter terminal)
    stty rows "${size%x*}" cols "${size#*x}" <"/dev/ttyS1"
    setsid -c /bin/sh /job <"/dev/ttyS1" >"/dev/ttyS1" 2>&1 4>&-
    status=$?
else
    # Pipes in between, for a port can be opened but once: /dev/stdout and friends work as anywhere.
    mkfifo /run/stdout /run/stderr
    cat /run/stdout >"${port}2" 4>&- &
    out=$!
    cat /run/stderr >"${port}3" 4>&- &
    err=$!
    /bin/sh /job <"${port}1" >/run/stdout 2>/run/stderr 4>&-
    status=$?
    # Whatever the command left running holds the pipes open. It may end by itself, in 20 looks; then it is ended. The
    # command's result is known already, so that no look changes it.
    tries=0
    while [ -d "/proc/$out" ] || [ -d "/proc/$err" ]; do
        tries=$((tries + 1))
        if [ "$tries" -eq 20 ]; then
            for process in /proc/[0-9]*; do
                process=${process#/proc/}
                case $process in 1 | "$out" | "$err") continue ;; esac
                kill -9 "$process" 2>/dev/null
            done
        fi
        [ "$tries" -lt 100 ] || break
        sleep 0.02
    done
fi

echo "exit $status" >&4
off
