#!/bin/busybox sh
# The first process of the virtual machine: makes it look like a machine and runs what it is told to, test by test.
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts devpts /dev/pts
# Not over /tmp, in which the checkout may lie; the first root is in memory anyway.
for folder in /dev/shm /run; do busybox mount -t tmpfs tmp $folder; done
busybox mkdir -p /run/netns /run/lock
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export FAIRLEAD_REQUIRE=all
# As many as a service of systemd may have: a lab of namespaces needs more than the kernel's 1024.
ulimit -n 524288
# Loaded on demand, by several tests at once, they cost five times as much.
modprobe -a veth bridge vxlan nft_chain_nat nft_nat nft_masq nft_numgen nft_ct nft_fib_ipv4 nft_fib_ipv6 \
    nft_reject_ipv4 nft_reject_ipv6 nf_conntrack_netlink
busybox hostname fairlead-vm
busybox ip link set lo up
# Built into some kernels.
modprobe -a -q virtio_pci virtio_console
tries=0
until [ -c /dev/vport0p1 ] && [ -c /dev/vport0p2 ] || [ $tries = 100 ]; do
    busybox sleep 0.1
    tries=$((tries + 1))
done
exec 3<>/dev/vport0p1 4>/dev/vport0p2
# One line for each test: its folder, its program and what the program is told. Nothing of that has spaces.
while echo 'fairlead-vm: next' >&3 && read -r folder program arguments <&3; do
    cd $folder
    CARGO_MANIFEST_DIR=$folder $program $arguments </dev/null >&3 2>&4 3<&- 4<&-
    status=$?
    # What the test has said before must arrive before.
    echo "fairlead-vm: end" >&4
    echo "fairlead-vm: end $status" >&3
done
# Whoever started this machine has gone.
busybox poweroff -f
