# The daemon is killed and started again while a guest uses its disk and its card; later they go, and nothing is left.
needs_a_daemon
# It waits in vain for devices that nobody takes down.
xl_may_complain
start_guest g 10.77.0.2 "$(disk "$(image root)")" "$(card 01)"
connected vbd g $xvda
connected vif g 0
# Until the file is gone, every write is checked; a failure is counted.
# In a shell of its own: the one that starts it keeps its output open, and the order would not end.
order g 'touch /tmp/go; sh -c "while [ -e /tmp/go ]; do dd if=/dev/zero of=/dev/xvda bs=64k count=8 conv=fsync || echo disk >> /tmp/failures
    ping -c 1 -W 5 10.77.0.1 || echo ping >> /tmp/failures; echo round >> /tmp/rounds; done" > /dev/null 2>&1 < /dev/null &'
flaps="cat /sys/class/net/vif$(xl domid g).0/carrier_changes /sys/class/net/vif$(xl domid g).0/ifindex"
before=$(backend "$flaps")
kill_daemon
sleep 2
timed "start again" start_daemon
sleep 3
[ "$(backend "$flaps")" = "$before" ] || fail "the link flapped"
order g 'rm /tmp/go; sleep 2; wc -l < /tmp/rounds; [ ! -e /tmp/failures ]' || fail "the guest's input and output failed"
connected vbd g $xvda
connected vif g 0
kill_daemon
timed "destroy while it is away" end_guest g
timed "start again, and clean up" start_daemon
