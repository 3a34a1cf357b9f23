# A guest with a disk and a card sees both, writes and reads the one, and pings over the other.
timed "create" start_guest g 10.77.0.2 "$(disk "$(image root)")" "$(card 01)"
connected vbd g $xvda
connected vif g 0
timed "write and read the disk" order g 'dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null && dd if=/tmp/a of=/dev/xvda bs=64k conv=fsync 2>/dev/null &&
    echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/xvda of=/tmp/b bs=64k count=16 2>/dev/null && cmp /tmp/a /tmp/b'
timed "ping over the bridge" order g 'ping -c 3 -W 5 10.77.0.1'
timed "destroy" end_guest g
