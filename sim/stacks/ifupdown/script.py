"""The program that boots, reloads and stops a machine of this stack: plain shell around Debian's ifup and ifdown."""

PROGRAM = "/usr/sbin/sim-networking"

NETWORKING = r"""#!/bin/sh
# sim-networking {start|stop|reload}: /etc/network/interfaces, applied by ifup(8) and taken back by ifdown(8).
#
# `ifdown` goes by the files as they are now: for a stanza that is gone it does nothing, and says so with status 0.
# And what it takes down keeps its MTU, its MAC address, its sysctls and what was added by hand. So this keeps, below
# /run, a copy of the files that were applied, and of what each device was like before.

run=/run/sim/ifupdown
applied=$run/applied/interfaces
before=$run/before
ipv6=/proc/sys/net/ipv6/conf

# What each device is like before anything is configured. Devices that come later were made by the configuration.
note() {
    for path in /sys/class/net/*; do
        device=${path##*/}
        [ "$device" = lo ] && continue
        mkdir -p "$before/$device"
        for name in mtu address; do cat "$path/$name" > "$before/$device/$name"; done
        sysctls "$device" > "$before/$device/sysctls"
    done
}

# NAME:VALUE of a device's IPv6 settings but for the MTU, which follows the device's.
sysctls() {
    [ ! -d "$ipv6/$1" ] || (cd "$ipv6/$1" && grep -s '' $(ls | grep -vx -e mtu -e stable_secret))
}

# A copy of the files, which leads to its own parts and not to those of today.
keep() {
    rm -rf "$run/applied"
    cp -a /etc/network "$run/applied" &&
        find "$run/applied" -type f -exec sed -i "/^[[:space:]]*source/s,/etc/network,$run/applied,g" {} +
}

# Names of what is or should be up, those that came last first.
names() {
    {
        ifquery --list -i "$applied"
        ifquery --list --allow=hotplug -i "$applied"
        ifquery --state | sed 's/=.*//'
    } 2>/dev/null | awk '$1 != "lo" && !seen[$1]++ { line[++n] = $1 } END { while (n) print line[n--] }'
}

take_down() {
    [ -f "$applied" ] || return 0
    names > "$run/names"
    while read -r device; do
        # --force: an interface that came up only in part counts as down, and would be left as it is
        ifdown --force --ignore-errors -i "$applied" "$device" < /dev/null || true
    done < "$run/names"
    while read -r device; do
        [ -d "$before/$device" ] || [ ! -e "/sys/class/net/$device" ] || ip link delete dev "$device"
    done < "$run/names"
    for path in "$before"/*; do
        [ ! -e "/sys/class/net/${path##*/}" ] || reset "${path##*/}"
    done
    : > /run/network/ifstate
    rm -f /run/network/ifstate.*  # of each interface: ifdown leaves it where it could not read the files
}

# A device as it was before: down, free, with its own MTU, MAC address and sysctls.
reset() {
    ip link set dev "$1" nomaster down
    ip addr flush dev "$1"
    read -r mtu < "$before/$1/mtu"
    read -r address < "$before/$1/address"
    ip link set dev "$1" mtu "$mtu" address "$address"
    sysctls "$1" > "$run/sysctls"
    grep -vxF -f "$run/sysctls" "$before/$1/sysctls" | while IFS=: read -r name old; do
        printf '%s' "$old" > "$ipv6/$1/$name"
    done
}

mkdir -p "$run" /run/network
case $1 in
start)
    note
    keep
    ifup -a
    ;;
reload)
    [ -d "$before" ] || note
    take_down
    keep
    ifup -a
    ;;
stop)
    take_down
    ;;
*)
    echo "Usage: $0 {start|stop|reload}" >&2
    exit 2
    ;;
esac
"""
