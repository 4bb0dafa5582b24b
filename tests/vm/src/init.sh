#!/bin/busybox sh
# The first process of the virtual machine: makes it look like a machine, runs what is in /vm/run, switches it off.
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts devpts /dev/pts
for folder in /dev/shm /tmp /run; do busybox mount -t tmpfs tmp $folder; done
busybox mkdir -p /run/netns /run/lock
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
busybox hostname fairlead-vm
busybox ip link set lo up
tries=0
until [ -c /dev/vport0p1 ] && [ -c /dev/vport0p2 ] || [ $tries = 100 ]; do
    busybox sleep 0.1
    tries=$((tries + 1))
done
# Whoever started this machine may be gone without having stopped it.
(busybox sleep 5400; busybox poweroff -f) >/dev/null 2>&1 &
. /vm/run >/dev/vport0p1 2>/dev/vport0p2
busybox poweroff -f
